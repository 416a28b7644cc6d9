package meshsim

import "maps"

// connectDialects change the payload of a browser or an app.
var connectDialects = []Dialect{
	shapes(OnConnect, "bothForms", "The payload holds the accessToken form and the delayedAuth form, with the same refresh token.",
		func(d *draft) {
			form, ok := d.tree["accessToken"].(map[string]any)
			if !ok {
				return
			}
			delayed := map[string]any{}
			for _, name := range []string{"brokerType", "brokerName", "brokerBrandInfo", "refreshTokenExpiresInSeconds"} {
				if v, there := form[name]; there {
					delayed[name] = v
				}
			}
			for _, e := range d.connectEntries() {
				delayed["refreshToken"] = e["refreshToken"]
			}
			d.tree["delayedAuth"] = delayed
		}),
	shapes(OnConnect, "nameMistyped", "The names of accounts are numbers.",
		eachConnected(func(e map[string]any) {
			if account, ok := e["account"].(map[string]any); ok {
				account["accountName"] = 17
			}
		})),
	shapes(OnConnect, "numericTokenId", "The tokenId is a number.", eachConnected(func(e map[string]any) { e["tokenId"] = 1234567 })),
	shapes(OnConnect, "unusableAccount", "One more account has neither an id nor a token.",
		func(d *draft) {
			if form, ok := d.tree["accessToken"].(map[string]any); ok {
				list, _ := form["accountTokens"].([]any)
				form["accountTokens"] = append([]any{map[string]any{"account": nil, "accessToken": 5}}, list...)
			}
		}),
	shapes(OnConnect, "wallet", "A wallet: accounts without any token.",
		eachConnected(func(e map[string]any) { delete(e, "refreshToken"); e["accessToken"] = "" })),
	shapes(OnConnect, "unknownPayloadMembers", "There are members that no contract knows.",
		func(d *draft) { maps.Copy(d.tree, map[string]any{"xNew": []any{1, nil}, "xFlag": true}) }),
	{
		Name: "loneSurrogate", On: OnConnect, Says: "A member that nobody reads holds half a surrogate pair.",
		shape: func(d *draft) { d.tree["xNote"] = "lone-surrogate-goes-here" },
		wire:  func(d *draft) { d.body = replaceFirst(d.body, "lone-surrogate-goes-here", `\ud83d`) },
	},
	shapes(OnConnect, "bare", "The bare object of the iOS, Android and Flutter SDKs: the value of accessToken or delayedAuth without its wrapper.",
		func(d *draft) {
			for _, form := range []string{"accessToken", "delayedAuth"} {
				if inner, ok := d.tree[form].(map[string]any); ok {
					d.tree = inner
					return
				}
			}
		}),
}

// connectEntries are the accounts of a payload in the accessToken form.
func (d *draft) connectEntries() []map[string]any {
	form, _ := d.tree["accessToken"].(map[string]any)
	return objects(form["accountTokens"])
}

func eachConnected(change func(entry map[string]any)) func(*draft) {
	return func(d *draft) {
		for _, e := range d.connectEntries() {
			change(e)
		}
	}
}
