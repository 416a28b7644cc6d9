package events

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"
)

// encodeCloudEvent returns an event as CloudEvents 1.0 JSON (structured mode). subject
// and source may be empty. The CloudEvents SDK would encode the data first and then write
// the event around it, and each refresh has an event.
func encodeCloudEvent(id, source, kind, subject string, at time.Time, data any) ([]byte, error) {
	b, err := json.Marshal(struct {
		SpecVersion     string    `json:"specversion"`
		ID              string    `json:"id"`
		Source          string    `json:"source"`
		Type            string    `json:"type"`
		Subject         string    `json:"subject,omitempty"`
		DataContentType string    `json:"datacontenttype"`
		Time            time.Time `json:"time"`
		Data            any       `json:"data"`
	}{cloudEventsVersion, id, cmp.Or(source, Source), kind, subject, "application/json", at.UTC(), data})
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", kind, err)
	}
	return b, nil
}
