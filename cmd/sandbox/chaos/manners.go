package chaos

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
)

// manner is how the institution of some grants behaves throughout, and in which form their
// users connect.
type manner struct {
	dialects []string // of behaviour, of lifetimes and of connects
	accounts int      // of a grant; 0: one, two or three
	delayed  bool     // connects with a refresh token and nothing else
	change   func(*meshsim.Institution)
}

// behaviours are the manners of every other grant.
var behaviours = []manner{
	{dialects: []string{"keptRefreshTokenLeftOut"}, change: func(i *meshsim.Institution) { i.Rotation = meshsim.RotateNever }},
	{dialects: []string{"deprecatedFields"}},
	{dialects: []string{"refreshTokenAlone"}},
	{dialects: []string{"oneTokenForAll"}, accounts: 3},
	{dialects: []string{"oneAccountAtATime"}, accounts: 2},
	{dialects: []string{"refreshTokenEach"}, accounts: 2},
	{dialects: []string{"accessTokenRequired", "tradeTokenRequired"}, accounts: 3},
	{dialects: []string{"managedTokens"}},
	{dialects: []string{"noLifetimes"}},
	{dialects: []string{"lifetimesAsTexts", "accessTokenRequired"}, accounts: 2},
	{dialects: []string{"hugeLifetimes"}},
	{dialects: []string{"oldAccessTokenEnds"}},
	{dialects: []string{"nullLifetimes"}, accounts: 2},
	{dialects: []string{"fractionalLifetimes", "diesFromDisuse"}, change: func(i *meshsim.Institution) { i.RefreshIdle = 5 * time.Minute }},
	{dialects: []string{"negativeLifetimes"}},
	{dialects: []string{"zeroLifetimes"}, accounts: 2},
}

// forms are the manners of every fourth grant.
var forms = []manner{
	{delayed: true, accounts: 1},
	{dialects: []string{"bare"}},
	{dialects: []string{"bothForms"}},
	{dialects: []string{"nameMistyped"}},
	{dialects: []string{"numericTokenId"}, accounts: 2},
	{dialects: []string{"unusableAccount"}},
	{dialects: []string{"unknownPayloadMembers", "loneSurrogate"}},
	{dialects: []string{"bare"}, delayed: true, accounts: 1},
}

// mannerOf is the manner of a grant. Every fourth has none.
func mannerOf(grant int) manner {
	switch {
	case grant%2 == 1:
		return behaviours[grant/2%len(behaviours)]
	case grant%4 == 2:
		return forms[grant/4%len(forms)]
	}
	return manner{}
}

// refusalOf is the dialect in which a grant's refresh token is refused after its user left.
func refusalOf(grant int) string {
	words := meshsim.DialectNames(meshsim.OnRefusal)
	return words[grant%len(words)]
}

func (r *run) connectOf(grant int) meshsim.ConnectSpec {
	m, i := mannerOf(grant), r.institution()
	i.Dialects = append(slices.Clone(m.dialects), refusalOf(grant))
	if m.change != nil {
		m.change(&i)
	}
	return meshsim.ConnectSpec{BrokerType: brokers[grant%len(brokers)], Accounts: accountsOf(grant), Delayed: m.delayed, Institution: &i}
}

func user(i int) string    { return fmt.Sprintf("user-%d", i) }
func account(i int) string { return fmt.Sprintf("account-%d", i) }

func accountsOf(i int) []meshsim.Account {
	list := []meshsim.Account{{ID: account(i), Name: "Account"}}
	for n := 2; n <= cmp.Or(mannerOf(i).accounts, i/2%3+1); n++ {
		list = append(list, meshsim.Account{ID: fmt.Sprintf("%s-%d", account(i), n), Name: fmt.Sprintf("Account %d", n)})
	}
	return list
}

const wallets = 3

func wallet(i int) string { return fmt.Sprintf("wallet-%d", i) }
