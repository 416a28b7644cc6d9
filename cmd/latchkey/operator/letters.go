package operator

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/latchkey/latchkey/cmd/latchkey/view"
	"github.com/latchkey/latchkey/handlers"
)

// lettersPerPage is how many dead letters the page shows at once.
const lettersPerPage = 50

func (p *Page) listLetters(r *http.Request) (any, error) {
	from := uint64(1)
	if text := r.URL.Query().Get("from"); text != "" {
		var err error
		if from, err = strconv.ParseUint(text, 10, 64); err != nil || from == 0 {
			return nil, refuse(http.StatusBadRequest, "from must be a place in the stream")
		}
	}
	views, next := []view.DeadLetter{}, uint64(0)
	for l, err := range p.Letters.From(r.Context(), from) {
		if err != nil {
			return nil, err
		}
		if len(views) == lettersPerPage {
			next = l.Sequence
			break
		}
		views = append(views, view.OfDeadLetter(l))
	}
	return map[string]any{"letters": views, "next": next}, nil
}

func (p *Page) replayLetter(r *http.Request) (any, error) {
	return p.onLetter(r, "deadletter.replay", "replayed", func(ctx context.Context, l handlers.ParkedLetter) error {
		err := p.Letters.Replay(ctx, l)
		if errors.Is(err, handlers.ErrOrigin) {
			return refuse(http.StatusConflict, "not replayed: "+handlers.ErrOrigin.Error()+"; it can only be dropped")
		}
		return err
	})
}

func (p *Page) dropLetter(r *http.Request) (any, error) {
	return p.onLetter(r, "deadletter.drop", "dropped", p.Letters.Drop)
}

// onLetter does something to the dead letter that a request names by its place in the
// stream and its id: another one may be at that place by now.
func (p *Page) onLetter(r *http.Request, action, done string, do func(context.Context, handlers.ParkedLetter) error) (any, error) {
	var named struct {
		ID string `json:"id"`
	}
	if err := body(r, &named); err != nil {
		return nil, err
	}
	sequence, err := strconv.ParseUint(r.PathValue("sequence"), 10, 64)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "the place in the stream must be a number")
	}
	// An action is finished even if the operator closes the page.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 30*time.Second)
	defer cancel()
	letter, err := p.Letters.At(ctx, sequence, named.ID)
	if errors.Is(err, handlers.ErrNoLetter) {
		return nil, refuse(http.StatusNotFound, "this dead letter is not there any more")
	}
	if err != nil {
		return nil, err
	}
	about := letter.ID + " (" + letter.Message + ")"
	p.audit(r, action, "", "", about+" begun")
	if err := do(ctx, letter); err != nil {
		p.audit(r, action, "", "", about+" failed")
		return nil, err
	}
	p.audit(r, action, "", "", about+" "+done)
	return map[string]string{"text": done}, nil
}
