package meshsim

import "maps"

// connectDialects are the ways in which a browser's or an app's payload looks.
var connectDialects = []Dialect{
	{
		Name: "bothForms", On: OnConnect, Says: "The payload holds the accessToken form and the delayedAuth form, with the same refresh token.",
		shape: func(d *draft) {
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
			for _, e := range d.connected() {
				delayed["refreshToken"] = e["refreshToken"]
			}
			d.tree["delayedAuth"] = delayed
		},
	},
	{
		Name: "nameMistyped", On: OnConnect, Says: "The names of accounts are numbers.",
		shape: eachConnected(func(e map[string]any) {
			if account, ok := e["account"].(map[string]any); ok {
				account["accountName"] = 17
			}
		}),
	},
	{Name: "numericTokenId", On: OnConnect, Says: "The tokenId is a number.", shape: eachConnected(func(e map[string]any) { e["tokenId"] = 1234567 })},
	{
		Name: "unusableAccount", On: OnConnect, Says: "One more account has neither an id nor a token.",
		shape: func(d *draft) {
			if form, ok := d.tree["accessToken"].(map[string]any); ok {
				list, _ := form["accountTokens"].([]any)
				form["accountTokens"] = append([]any{map[string]any{"account": nil, "accessToken": 5}}, list...)
			}
		},
	},
	{
		Name: "wallet", On: OnConnect, Says: "A wallet: accounts without any token.",
		shape: eachConnected(func(e map[string]any) { delete(e, "refreshToken"); e["accessToken"] = "" }),
	},
	{
		Name: "unknownPayloadMembers", On: OnConnect, Says: "There are members that no contract knows.",
		shape: func(d *draft) { maps.Copy(d.tree, map[string]any{"xNew": []any{1, nil}, "xFlag": true}) },
	},
	{
		Name: "loneSurrogate", On: OnConnect, Says: "A member that nobody reads holds half a surrogate pair.",
		shape: func(d *draft) { d.tree["xNote"] = "lone-surrogate-goes-here" },
		wire:  func(d *draft) { d.body = replaced(d.body, "lone-surrogate-goes-here", `\ud83d`) },
	},
	{
		Name: "bare", On: OnConnect, Says: "The bare object of the iOS, Android and Flutter SDKs: the value of accessToken or delayedAuth without its wrapper.",
		shape: func(d *draft) {
			for _, form := range []string{"accessToken", "delayedAuth"} {
				if inner, ok := d.tree[form].(map[string]any); ok {
					d.tree = inner
					return
				}
			}
		},
	},
}

// connected are the accounts of a payload in the accessToken form.
func (d *draft) connected() (out []map[string]any) {
	form, _ := d.tree["accessToken"].(map[string]any)
	list, _ := form["accountTokens"].([]any)
	for _, e := range list {
		if entry, ok := e.(map[string]any); ok {
			out = append(out, entry)
		}
	}
	return out
}

func eachConnected(change func(entry map[string]any)) func(*draft) {
	return func(d *draft) {
		for _, e := range d.connected() {
			change(e)
		}
	}
}
