package doctor

import "time"

// reading compares another machine's clock with this one.
type reading struct {
	// ahead is how far that clock is ahead of this one, unsure the error of that.
	ahead, unsure time.Duration
}

var clockNames = []string{"nats", "mongodb", "kms", "mesh"}

// timed records the time in the answer to a call that has just ended. grain is the
// resolution of that clock.
func (d *doctor) timed(name string, began, answered time.Time, grain time.Duration) {
	if answered.IsZero() {
		return
	}
	took := d.now().Sub(began)
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.readings[name]; !known {
		d.readings[name] = reading{ahead: answered.Add(grain / 2).Sub(began.Add(took / 2)), unsure: (took + grain) / 2}
	}
}

// clock judges a clock by the skew that leases tolerate.
func (d *doctor) clock(name string) Result {
	d.mu.Lock()
	r, known := d.readings[name]
	d.mu.Unlock()
	r.unsure = max(r.unsure, time.Millisecond)
	apart := max(r.ahead.Abs()-r.unsure, 0)
	limit := d.cfg.Worker.ClockSkew
	var result Result
	switch side := "ahead of"; {
	case !known:
		result = warning("look at the checks above", "not known: there was no answer with a time")
	case apart == 0:
		result = ok("no difference that can be measured (within %v)", r.unsure.Round(time.Millisecond))
	default:
		if r.ahead > 0 {
			side = "behind"
		}
		const text = "this clock is %v (give or take %v) %s that of %s; worker.clock_skew is %v"
		args := []any{r.ahead.Abs().Round(time.Millisecond), r.unsure.Round(time.Millisecond), side, name, limit}
		const do = "run time synchronisation (chrony, systemd-timesyncd) on this machine and that one"
		switch {
		case apart > limit:
			result = failed(do, text, args...)
		case apart > limit/2:
			result = warning(do, text, args...)
		default:
			result = ok(text, args...)
		}
	}
	result.Check = "clock " + name
	return result
}
