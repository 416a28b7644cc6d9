package meshsim

import "net/http"

// exampleRefusal is Mesh's own example of a refused refresh token.
var exampleRefusal = map[string]any{
	"status": StatusBadRequest, "message": "Unauthorized token", "displayMessage": "Please connect your account again.",
	"errorHash": "3f1c2ab9", "errorType": StatusBadRequest,
}

var refusalDialects = []Dialect{
	shapes(OnRefusal, "unauthorizedToken", "A refresh token is refused as in Mesh's own example: HTTP 400, badRequest, and errorType badRequest.",
		envelopeOf(http.StatusBadRequest, exampleRefusal)),
	shapes(OnRefusal, "refusedNotFound", "A refresh token is refused with the envelope notFound under HTTP 404.",
		envelopeOf(http.StatusNotFound, map[string]any{"status": StatusNotFound, "message": "The connection was not found", "errorType": StatusNotFound, "errorHash": "77aa01"})),
	shapes(OnRefusal, "refusedPermissionDenied", "A refresh token is refused with the envelope permissionDenied under HTTP 200.",
		envelopeOf(http.StatusOK, map[string]any{"status": StatusPermissionDenied, "message": "Consent was withdrawn", "errorType": StatusPermissionDenied, "errorHash": "77aa02"})),
	shapes(OnRefusal, "unauthorized", "A user's refresh token is refused with HTTP 401 and a body like that for wrong credentials, though GET /api/v1/status takes the credentials.",
		func(d *draft) { asProblem(d, http.StatusUnauthorized) }),
	sends(OnRefusal, "unauthorizedEmpty", "A user's refresh token is refused with HTTP 401 and no body.",
		func(d *draft) { d.status, d.body = http.StatusUnauthorized, nil }),
	shapes(OnWrongCode, "mfaCodeInvalid", "A wrong or late code is refused with HTTP 400, badRequest, and errorType invalidField.",
		envelopeOf(http.StatusBadRequest, map[string]any{"status": StatusBadRequest, "message": "The MFA code is wrong", "errorType": "invalidField", "errorHash": "77aa03"})),
	shapes(OnRemoval, "removalServerFailure", "A removal is answered with serverFailure under HTTP 200.",
		func(d *draft) { d.tree["status"], d.tree["message"] = StatusServerFailure, "try again" }),
	shapes(OnRemoval, "removalNotFound", "A removal is answered with notFound under HTTP 404.",
		envelopeOf(http.StatusNotFound, map[string]any{"status": StatusNotFound})),
}

func asProblem(d *draft, status int) {
	d.status, d.tree = status, problemBody(status)
	d.header.Set("Content-Type", problem(status).contentType)
}

// insteadDialects are what stands between a client and the institution.
var insteadDialects = []Dialect{
	sends(InsteadOfRefresh, "firewall", "A firewall in front of this one institution answers a page under HTTP 403.", pageOf(http.StatusForbidden, "Access denied")),
	shapes(InsteadOfRefresh, "legal", "HTTP 451 with the envelope unavailableForLegalReasons.",
		envelopeOf(http.StatusUnavailableForLegalReasons, map[string]any{"status": StatusUnavailableForLegalReasons, "errorType": StatusUnavailableForLegalReasons, "errorHash": "77aa04"})),
	shapes(InsteadOfRefresh, "legalUnder200", "The envelope unavailableForLegalReasons under HTTP 200.",
		envelopeOf(http.StatusOK, map[string]any{"status": StatusUnavailableForLegalReasons, "errorType": StatusUnavailableForLegalReasons, "errorHash": "77aa05"})),
	shapes(InsteadOfRefresh, "slowDown", "HTTP 429 with a Retry-After of a second.",
		func(d *draft) { asProblem(d, http.StatusTooManyRequests); d.header.Set("Retry-After", "1") }),
	shapes(InsteadOfRefresh, "tooManyRequestUnder200", "The envelope tooManyRequest under HTTP 200 with a Retry-After of a second.",
		func(d *draft) {
			envelopeOf(http.StatusOK, map[string]any{"status": StatusTooManyRequest})(d)
			d.header.Set("Retry-After", "1")
		}),
	sends(InsteadOfRefresh, "maintenance", "A page under HTTP 503 with a Retry-After of two seconds.",
		func(d *draft) {
			pageOf(http.StatusServiceUnavailable, "Down for maintenance")(d)
			d.header.Set("Retry-After", "2")
		}),
	requestRefused("missingField"), requestRefused("invalidField"),
	shapes(InsteadOfRefresh, "refuseEverything", "A bad deploy: every refresh token is refused as in Mesh's own example, though the institution never saw it and would take it.",
		envelopeOf(http.StatusBadRequest, exampleRefusal)),
	shapes(InsteadOfRefresh, "failEverything", "A bad deploy: every refresh is answered failed, though the institution never saw the token and would take it.",
		envelopeOf(http.StatusOK, map[string]any{"status": StatusOK, "content": map[string]any{"status": contentFailed, "errorMessage": "Token was revoked"}})),
	sends(InsteadOfRefresh, "wrongURL", "Another service answers: a page under HTTP 404.", pageOf(http.StatusNotFound, "Not found")),
}

func requestRefused(errorType string) Dialect {
	return shapes(InsteadOfRefresh, errorType, "HTTP 400, badRequest, and errorType "+errorType+", which blames the request and not the token.",
		envelopeOf(http.StatusBadRequest, map[string]any{"status": StatusBadRequest, "message": "The request is not valid", "errorType": errorType, "errorHash": "77aa06"}))
}
