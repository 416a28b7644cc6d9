package credentials

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	endsDesc = prometheus.NewDesc("latchkey_credential_ends_seconds",
		"Unix time at which a certificate or credential ends; 0 when it can't be read.", []string{"credential"}, nil)
	renewByDesc = prometheus.NewDesc("latchkey_credential_renew_by_seconds",
		"Unix time by which it should have been renewed; 0 when it can't be read.", []string{"credential"}, nil)
)

// Collector reports when each file ends, as the worker uses it: what is read when
// a worker starts is not read again.
type Collector struct{ watched []watched }

type watched struct {
	name     string
	validity func() (Validity, error)
}

// Watch returns a collector. It reads what a worker keeps.
func Watch(files []File) *Collector {
	c := &Collector{}
	for _, f := range files {
		w := watched{f.Name, f.Validity}
		if f.kept {
			validity, err := f.Validity()
			w.validity = func() (Validity, error) { return validity, err }
		}
		c.watched = append(c.watched, w)
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	to <- endsDesc
	to <- renewByDesc
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	for _, w := range c.watched {
		validity, err := w.validity()
		if err == nil && validity.Ends.IsZero() {
			continue
		}
		send := func(what *prometheus.Desc, at time.Time) {
			value := 0.0
			if err == nil {
				value = float64(at.Unix())
			}
			to <- prometheus.MustNewConstMetric(what, prometheus.GaugeValue, value, w.name)
		}
		send(endsDesc, validity.Ends)
		send(renewByDesc, validity.RenewBy())
	}
}
