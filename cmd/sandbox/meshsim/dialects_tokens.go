package meshsim

import (
	"fmt"
	"maps"
	"strconv"
)

var tokenDialects = []Dialect{
	shapes(OnTokens, "noAccount", "Entries have no account, as in Mesh's own example: one for each account, in their order.",
		eachAccount(func(entry, _ map[string]any) { delete(entry, "account") })),
	shapes(OnTokens, "accountNull", "The account of each entry is null.",
		eachAccount(func(entry, _ map[string]any) { entry["account"] = nil })),
	shapes(OnTokens, "accountIdNull", "The account of each entry has a name, and null for an id.",
		eachAccount(func(_, account map[string]any) { account["accountId"] = nil })),
	shapes(OnTokens, "accountIdEmpty", "The account of each entry has a name, and an empty id.",
		eachAccount(func(_, account map[string]any) { account["accountId"] = "" })),
	shapes(OnTokens, "deprecatedAsWell", "The deprecated top-level fields repeat what the first entry says, without an account.",
		func(d *draft) {
			if list := d.entries(); len(list) > 0 && d.content()["accessToken"] == nil {
				d.content()["accessToken"], d.content()["refreshToken"] = list[0]["accessToken"], list[0]["refreshToken"]
			}
		}),
	shapes(OnTokens, "echoFirst", "The refresh token that was presented is stated once more, before the one that replaces it.",
		echoFirst),
	shapes(OnTokens, "noContentStatus", "The content has no status.",
		func(d *draft) { delete(d.content(), "status") }),
	shapes(OnTokens, "nullContentStatus", "The status of the content is null.",
		func(d *draft) { d.content()["status"] = nil }),
	shapes(OnTokens, "unknownContentStatus", "The status of the content is a word that no contract knows.",
		func(d *draft) { d.content()["status"] = "renewed" }),
	shapes(OnTokens, "failedBesideTokens", "The status of the content is failed, and the tokens stand beside it.",
		func(d *draft) { d.content()["status"] = contentFailed }),
	shapes(OnTokens, "noEnvelopeStatus", "The envelope has no status.",
		func(d *draft) { delete(d.tree, "status") }),
	shapes(OnTokens, "unknownEnvelopeStatus", "The status of the envelope is a word that no contract knows.",
		func(d *draft) { d.tree["status"] = "partialSuccess" }),
	beside(StatusServerFailure), beside(StatusTooManyRequest), beside(StatusBadRequest), beside(StatusNotFound), beside(StatusPermissionDenied),
	under(400), under(401), under(403), under(429), under(500), under(502),
	shapes(OnTokens, "mistyped", "Members that nobody needs are of other types than the contract says: texts for numbers, lists for texts.",
		func(d *draft) {
			d.tree["message"], d.tree["errorType"], d.tree["displayMessage"] = []any{1}, map[string]any{}, 7
			d.content()["errorMessage"], d.content()["expiresInSeconds"] = []any{}, map[string]any{"seconds": 3600}
			eachAccount(func(entry, account map[string]any) {
				account["fund"], account["accountName"], entry["tokenId"] = "much", 5, []any{}
			})(d)
		}),
	shapes(OnTokens, "unknownMembers", "There are members of several types, at two depths, that no contract knows.",
		func(d *draft) {
			added := map[string]any{"xNew": map[string]any{"nested": []any{1, 2.5, nil, true, "x"}}, "xFlag": false}
			maps.Copy(d.tree, added)
			maps.Copy(d.content(), added)
		}),
	shapes(OnLifetimes, "lifetimesAsTexts", `Lifetimes are texts: "3600".`, lifetimes(func(s float64) any { return strconv.FormatFloat(s, 'f', -1, 64) })),
	shapes(OnLifetimes, "fractionalLifetimes", "Lifetimes are no whole numbers: 3600.5.", lifetimes(func(s float64) any { return s + 0.5 })),
	shapes(OnLifetimes, "hugeLifetimes", "Lifetimes are ten thousand years.", lifetimes(func(float64) any { return 315569520000 })),
	shapes(OnLifetimes, "negativeLifetimes", "Lifetimes are -1.", lifetimes(func(float64) any { return -1 })),
}

// beside is a dialect in which the envelope reports a failure and brings tokens.
func beside(status string) Dialect {
	return shapes(OnTokens, status+"BesideTokens", fmt.Sprintf("The status of the envelope is %s, under HTTP 200, and the tokens stand beside it.", status),
		func(d *draft) { d.tree["status"] = status })
}

// under is a dialect in which the HTTP status reports a failure and the body brings tokens.
func under(httpStatus int) Dialect {
	return shapes(OnTokens, fmt.Sprintf("tokensUnder%d", httpStatus), fmt.Sprintf("Tokens, ok and succeeded come under HTTP %d.", httpStatus),
		func(d *draft) { d.status = httpStatus })
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

// lifetimes changes how lifetimes are written, wherever they stand.
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
