package api

import (
	"context"
	"net/http"
)

// Step is one step of something that takes a while, in a sentence.
type Step struct {
	Text string `json:"text"`
}

// eventStep is the kind of event of a Step.
const eventStep = "step"

// steps does work and sends what it tells, as a stream. The work's ctx ends when the client goes away.
func (s *Server) steps(w http.ResponseWriter, r *http.Request, work func(ctx context.Context, tell func(string)) error) error {
	out := newWriter(w)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	items, stop := make(chan Step), make(chan error, 1)
	go func() { // ends with the work, which ends with ctx
		stop <- work(ctx, func(text string) { _ = give(ctx, items, Step{Text: text}) })
		close(items)
	}()
	return s.finish(w, r, out, pass(ctx, out, items, stop, func(x Step) error { return out.put(eventStep, 0, x) }))
}

// steps asks for something that takes a while and tells each step; tell may be nil.
func (c *Client) steps(ctx context.Context, path string, body any, tell func(string)) error {
	return streamOf(ctx, c, http.MethodPost, path, body, func(_ string, x Step) error {
		if tell != nil {
			tell(x.Text)
		}
		return nil
	})
}
