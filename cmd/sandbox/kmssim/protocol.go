package kmssim

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/google/uuid"
)

const (
	contentType  = "application/x-amz-json-1.1"
	targetPrefix = "TrentService."
	maxRequest   = 128 << 10 // far above the largest valid request
)

var errDisconnect = errors.New("disconnect")

type apiError struct {
	status  int
	code    string
	message string
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func clientError(code, message string) error {
	return &apiError{http.StatusBadRequest, code, message}
}

func notFound(message string) error { return clientError("NotFoundException", message) }

func invalidCiphertext() error {
	return clientError("InvalidCiphertextException", "The ciphertext or its encryption context is not valid.")
}

// failureOf returns the error to answer, or closes the connection if there is none to.
func failureOf(r *http.Request, err error, internal string) *apiError {
	if errors.Is(err, errDisconnect) || r.Context().Err() != nil {
		panic(http.ErrAbortHandler)
	}
	var e *apiError
	if !errors.As(err, &e) {
		e = &apiError{http.StatusInternalServerError, internal, err.Error()}
	}
	return e
}

func (k *KMS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, err := k.handle(w, r)
	status := http.StatusOK
	if err != nil {
		e := failureOf(r, err, "KMSInternalException")
		status = e.status
		answer = struct {
			Type    string `json:"__type"`
			Message string `json:"message"`
		}{e.code, e.message}
	}
	body, err := json.Marshal(answer)
	if err != nil {
		panic(err) // all answers are plain structs
	}
	w.Header().Set("X-Amzn-Requestid", uuid.NewString())
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that has gone needs no answer
}

func (k *KMS) handle(w http.ResponseWriter, r *http.Request) (any, error) {
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	name, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), targetPrefix)
	if !ok || media != contentType || r.Method != http.MethodPost {
		return nil, &apiError{http.StatusNotFound, "UnknownOperationException", "This is not an AWS JSON 1.1 request to KMS."}
	}
	run, ok := operations[name]
	if !ok {
		return nil, clientError("UnknownOperationException", "The operation is not simulated.")
	}

	// The body is read before waiting: only then does the server notice a client that hangs
	// up.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return nil, &apiError{http.StatusRequestEntityTooLarge, "RequestEntityTooLargeException", "The request is too large."}
	} else if err != nil {
		return nil, errDisconnect
	}
	if err := k.faults.hit(r.Context(), name); err != nil {
		return nil, err
	}
	if err := k.authenticate(r, body); err != nil {
		return nil, err
	}
	return run(k, body)
}
