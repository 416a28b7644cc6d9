package meshsim

import (
	"fmt"
	"maps"
	"strconv"
)

// tokenDialects are the ways in which new tokens are told.
var tokenDialects = []Dialect{
	{Name: "noAccount", On: OnTokens, Says: "Entries have no account, as in Mesh's own example: one for each account, in their order.",
		shape: eachAccount(func(entry, _ map[string]any) { delete(entry, "account") })},
	{Name: "accountNull", On: OnTokens, Says: "The account of each entry is null.",
		shape: eachAccount(func(entry, _ map[string]any) { entry["account"] = nil })},
	{Name: "accountIdNull", On: OnTokens, Says: "The account of each entry has a name, and null for an id.",
		shape: eachAccount(func(_, account map[string]any) { account["accountId"] = nil })},
	{Name: "accountIdEmpty", On: OnTokens, Says: "The account of each entry has a name, and an empty id.",
		shape: eachAccount(func(_, account map[string]any) { account["accountId"] = "" })},
	{Name: "deprecatedAsWell", On: OnTokens, Says: "The deprecated top-level fields repeat what the first entry says, without an account.",
		shape: func(d *draft) {
			if list := d.entries(); len(list) > 0 && d.content()["accessToken"] == nil {
				d.content()["accessToken"], d.content()["refreshToken"] = list[0]["accessToken"], list[0]["refreshToken"]
			}
		}},
	{Name: "echoFirst", On: OnTokens, Says: "The refresh token that was presented is told once more, before the one that replaces it.",
		shape: echoFirst},
	{Name: "noContentStatus", On: OnTokens, Says: "The content has no status.",
		shape: func(d *draft) { delete(d.content(), "status") }},
	{Name: "nullContentStatus", On: OnTokens, Says: "The status of the content is null.",
		shape: func(d *draft) { d.content()["status"] = nil }},
	{Name: "unknownContentStatus", On: OnTokens, Says: "The status of the content is a word that no contract knows.",
		shape: func(d *draft) { d.content()["status"] = "renewed" }},
	{Name: "failedBesideTokens", On: OnTokens, Says: "The status of the content is failed, and the tokens stand beside it.",
		shape: func(d *draft) { d.content()["status"] = contentFailed }},
	{Name: "noEnvelopeStatus", On: OnTokens, Says: "The envelope has no status.",
		shape: func(d *draft) { delete(d.tree, "status") }},
	{Name: "unknownEnvelopeStatus", On: OnTokens, Says: "The status of the envelope is a word that no contract knows.",
		shape: func(d *draft) { d.tree["status"] = "partialSuccess" }},
	beside(StatusServerFailure), beside(StatusTooManyRequest), beside(StatusBadRequest), beside(StatusNotFound), beside(StatusPermissionDenied),
	under(400), under(401), under(403), under(429), under(500), under(502),
	{Name: "mistyped", On: OnTokens, Says: "Members that nobody needs are of other types than the contract says: texts for numbers, lists for texts.",
		shape: func(d *draft) {
			d.tree["message"], d.tree["errorType"], d.tree["displayMessage"] = []any{1}, map[string]any{}, 7
			d.content()["errorMessage"], d.content()["expiresInSeconds"] = []any{}, map[string]any{"seconds": 3600}
			eachAccount(func(entry, account map[string]any) {
				account["fund"], account["accountName"], entry["tokenId"] = "much", 5, []any{}
			})(d)
		}},
	{Name: "unknownMembers", On: OnTokens, Says: "There are members of several types, at two depths, that no contract knows.",
		shape: func(d *draft) {
			added := map[string]any{"xNew": map[string]any{"nested": []any{1, 2.5, nil, true, "x"}}, "xFlag": false}
			maps.Copy(d.tree, added)
			maps.Copy(d.content(), added)
		}},
	{Name: "lifetimesAsTexts", On: OnLifetimes, Says: `Lifetimes are texts: "3600".`, shape: lifetimes(func(s float64) any { return strconv.FormatFloat(s, 'f', -1, 64) })},
	{Name: "fractionalLifetimes", On: OnLifetimes, Says: "Lifetimes are no whole numbers: 3600.5.", shape: lifetimes(func(s float64) any { return s + 0.5 })},
	{Name: "hugeLifetimes", On: OnLifetimes, Says: "Lifetimes are ten thousand years.", shape: lifetimes(func(float64) any { return 315569520000 })},
	{Name: "negativeLifetimes", On: OnLifetimes, Says: "Lifetimes are -1.", shape: lifetimes(func(float64) any { return -1 })},
}

// beside is a dialect in which the envelope tells of a failure and brings tokens.
func beside(status string) Dialect {
	return Dialect{Name: status + "BesideTokens", On: OnTokens, Says: fmt.Sprintf("The status of the envelope is %s, under HTTP 200, and the tokens stand beside it.", status),
		shape: func(d *draft) { d.tree["status"] = status }}
}

// under is a dialect in which the HTTP status tells of a failure and the body brings
// tokens.
func under(httpStatus int) Dialect {
	return Dialect{Name: fmt.Sprintf("tokensUnder%d", httpStatus), On: OnTokens, Says: fmt.Sprintf("Tokens, ok and succeeded come under HTTP %d.", httpStatus),
		shape: func(d *draft) { d.status = httpStatus }}
}

// echoFirst has the first entry hold the refresh token that was presented. Where no
// other entry holds the new one, the deprecated field does.
func echoFirst(d *draft) {
	list := d.entries()
	if len(list) == 0 || list[0]["refreshToken"] == nil {
		return
	}
	if other := d.content()["refreshToken"]; other != nil && other != list[0]["refreshToken"] {
		return // there is no room for both
	}
	if len(list) == 1 || list[1]["refreshToken"] != list[0]["refreshToken"] {
		d.content()["refreshToken"] = list[0]["refreshToken"]
	}
	list[0]["refreshToken"] = d.presented
}

// lifetimes says lifetimes in another way, wherever they stand.
func lifetimes(say func(seconds float64) any) func(*draft) {
	return func(d *draft) { walkLifetimes(d.tree, say) }
}

func walkLifetimes(node map[string]any, say func(float64) any) {
	for name, value := range node {
		switch v := value.(type) {
		case map[string]any:
			walkLifetimes(v, say)
		case float64:
			if name == "expiresInSeconds" || name == "refreshTokenExpiresInSeconds" {
				node[name] = say(v)
			}
		}
	}
}
