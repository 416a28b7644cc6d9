package meshsim

import "net/http"

// exampleRefusal is Mesh's own example of a refresh token that the institution does
// not take.
var exampleRefusal = map[string]any{
	"status": StatusBadRequest, "message": "Unauthorized token", "displayMessage": "Please connect your account again.",
	"errorHash": "3f1c2ab9", "errorType": StatusBadRequest,
}

// refusalDialects are the ways in which a refusal is told.
var refusalDialects = []Dialect{
	{
		Name: "unauthorizedToken", On: OnRefusal, Says: "A refresh token is refused as in Mesh's own example: HTTP 400, badRequest, and errorType badRequest.",
		shape: envelopeOf(http.StatusBadRequest, exampleRefusal),
	},
	{
		Name: "refusedNotFound", On: OnRefusal, Says: "A refresh token is refused with the envelope notFound under HTTP 404.",
		shape: envelopeOf(http.StatusNotFound, map[string]any{"status": StatusNotFound, "message": "The connection was not found", "errorType": StatusNotFound, "errorHash": "77aa01"}),
	},
	{
		Name: "refusedPermissionDenied", On: OnRefusal, Says: "A refresh token is refused with the envelope permissionDenied under HTTP 200.",
		shape: envelopeOf(http.StatusOK, map[string]any{"status": StatusPermissionDenied, "message": "Consent was withdrawn", "errorType": StatusPermissionDenied, "errorHash": "77aa02"}),
	},
	{
		Name: "unauthorized", On: OnRefusal, Says: "A user's refresh token is refused with HTTP 401 and a body like that for wrong credentials, though GET /api/v1/status takes the credentials.",
		shape: func(d *draft) { asProblem(d, http.StatusUnauthorized) },
	},
	{
		Name: "unauthorizedEmpty", On: OnRefusal, Says: "A user's refresh token is refused with HTTP 401 and no body.",
		shape: func(d *draft) { d.status = http.StatusUnauthorized }, wire: func(d *draft) { d.body = nil },
	},
	{
		Name: "mfaCodeInvalid", On: OnWrongCode, Says: "A wrong or late code is refused with HTTP 400, badRequest, and errorType invalidField.",
		shape: envelopeOf(http.StatusBadRequest, map[string]any{"status": StatusBadRequest, "message": "The MFA code is wrong", "errorType": "invalidField", "errorHash": "77aa03"}),
	},
	{
		Name: "removalServerFailure", On: OnRemoval, Says: "A removal is answered with serverFailure under HTTP 200.",
		shape: func(d *draft) { d.tree["status"], d.tree["message"] = StatusServerFailure, "try again" },
	},
	{
		Name: "removalNotFound", On: OnRemoval, Says: "A removal is answered with notFound under HTTP 404.",
		shape: envelopeOf(http.StatusNotFound, map[string]any{"status": StatusNotFound}),
	},
}

func asProblem(d *draft, status int) {
	p := problem(status)
	d.status, d.tree = status, map[string]any{"type": "about:blank", "title": http.StatusText(status), "status": status}
	d.header.Set("Content-Type", p.contentType)
}

// insteadDialects are what stands between a client and the institution.
var insteadDialects = []Dialect{
	{Name: "firewall", On: InsteadOfRefresh, Says: "A firewall in front of this one institution answers a page under HTTP 403.", wire: pageOf(http.StatusForbidden, "Access denied")},
	{
		Name: "legal", On: InsteadOfRefresh, Says: "HTTP 451 with the envelope unavailableForLegalReasons.",
		shape: envelopeOf(http.StatusUnavailableForLegalReasons, map[string]any{"status": StatusUnavailableForLegalReasons, "errorType": StatusUnavailableForLegalReasons, "errorHash": "77aa04"}),
	},
	{
		Name: "legalUnder200", On: InsteadOfRefresh, Says: "The envelope unavailableForLegalReasons under HTTP 200.",
		shape: envelopeOf(http.StatusOK, map[string]any{"status": StatusUnavailableForLegalReasons, "errorType": StatusUnavailableForLegalReasons, "errorHash": "77aa05"}),
	},
	{
		Name: "slowDown", On: InsteadOfRefresh, Says: "HTTP 429 with a Retry-After of a second.",
		shape: func(d *draft) { asProblem(d, http.StatusTooManyRequests); d.header.Set("Retry-After", "1") },
	},
	{
		Name: "tooManyRequestUnder200", On: InsteadOfRefresh, Says: "The envelope tooManyRequest under HTTP 200 with a Retry-After of a second.",
		shape: func(d *draft) {
			envelopeOf(http.StatusOK, map[string]any{"status": StatusTooManyRequest})(d)
			d.header.Set("Retry-After", "1")
		},
	},
	{
		Name: "maintenance", On: InsteadOfRefresh, Says: "A page under HTTP 503 with a Retry-After of two seconds.",
		wire: func(d *draft) {
			pageOf(http.StatusServiceUnavailable, "Down for maintenance")(d)
			d.header.Set("Retry-After", "2")
		},
	},
	requestRefused("missingField"), requestRefused("invalidField"),
	{
		Name: "refuseEverything", On: InsteadOfRefresh, Says: "A bad deploy: every refresh token is refused as in Mesh's own example, though the institution never saw it and would take it.",
		shape: envelopeOf(http.StatusBadRequest, exampleRefusal),
	},
	{
		Name: "failEverything", On: InsteadOfRefresh, Says: "A bad deploy: every refresh is answered failed, though the institution never saw the token and would take it.",
		shape: envelopeOf(http.StatusOK, map[string]any{"status": StatusOK, "content": map[string]any{"status": contentFailed, "errorMessage": "Token was revoked"}}),
	},
	{Name: "wrongURL", On: InsteadOfRefresh, Says: "Another service answers: a page under HTTP 404.", wire: pageOf(http.StatusNotFound, "Not found")},
}

// requestRefused is a dialect that blames the request, not the token.
func requestRefused(errorType string) Dialect {
	return Dialect{
		Name: errorType, On: InsteadOfRefresh, Says: "HTTP 400, badRequest, and errorType " + errorType + ", which blames the request and not the token.",
		shape: envelopeOf(http.StatusBadRequest, map[string]any{"status": StatusBadRequest, "message": "The request is not valid", "errorType": errorType, "errorHash": "77aa06"}),
	}
}
