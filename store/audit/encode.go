package audit

import (
	"encoding/json"
	"fmt"
)

// encode returns a record as JSON, shortened where it is longer than limit.
func (r Record) encode(limit int) ([]byte, error) {
	data, err := json.Marshal(r)
	if err == nil && len(data) > limit {
		r.Truncated = true
		grants := r.Grants
		r.Grants = make([]Grant, 0, len(grants))
		for _, g := range grants {
			g.Accounts = nil
			r.Grants = append(r.Grants, g)
		}
		data, err = json.Marshal(r)
	}
	if err == nil && len(data) > limit {
		r.Grants = nil
		data, err = json.Marshal(r)
	}
	if err != nil {
		return nil, fmt.Errorf("encoding an audit record: %w", err)
	}
	return data, nil
}
