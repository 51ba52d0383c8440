package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"flota/internal/fault"
)

// A stream is server-sent events. Each item is an event whose data is JSON; the kinds below stand beside those that the
// stream's own items have.
const (
	eventEnd     = "end"     // the stream ended as asked for; without it the connection broke
	eventProblem = "problem" // data is a Problem; the stream ends
	eventReady   = "ready"   // of a watch: all units have been sent once
	eventUnit    = "unit"    // of a watch: data is a Unit
	eventDeleted = "deleted" // of a watch: data is a Unit with nothing but a name
	eventLine    = "line"    // data is a LogLine
	eventEvent   = "event"   // data is an Event
)

const (
	// heartbeat is how often an idle stream sends a comment line.
	heartbeat = 5 * time.Second
	// silence is after how long without a byte a client takes the server for dead: three heartbeats, and some.
	silence = 17 * time.Second
	// maxLine bounds one line of a stream: a unit of 1 MiB, as JSON with its places and states.
	maxLine = 16 << 20
)

// stream reads the items of an event stream until it ends; see Client.Logs for when that is.
func stream[T any](ctx context.Context, c *Client, path string, f func(kind string, item T) error) error {
	return streamOf(ctx, c, http.MethodGet, path, nil, f)
}

// streamOf does it for any method.
func streamOf[T any](ctx context.Context, c *Client, method, path string, body any, f func(kind string, item T) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	dead := time.AfterFunc(silence, func() {
		cancel(fault.New(fault.Unavailable, "the machine that answered has been silent for %s", silence))
	})
	defer dead.Stop()
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	err = readEvents(resp.Body, func() { dead.Reset(silence) }, func(kind string, data []byte) error {
		switch kind {
		case eventProblem:
			return parseProblem(http.StatusInternalServerError, data)
		case eventReady:
			return nil
		}
		var item T
		if err := json.Unmarshal(data, &item); err != nil {
			return fault.Wrap(fault.Internal, err, "read the stream %s", path)
		}
		dead.Stop() // while f takes its time, it is not the server that is silent
		defer dead.Reset(silence)
		return f(kind, item)
	})
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == io.ErrUnexpectedEOF {
		c.stick(nil) // the machine went away: ask another next time
		return fault.New(fault.Unavailable, "the connection to the machine that answered was lost")
	}
	return err
}

// readEvents calls f for each event until the end event (nil), an error of f, or the end of r, which is io.ErrUnexpectedEOF.
// alive is called with each line.
func readEvents(r io.Reader, alive func(), f func(kind string, data []byte) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4096), maxLine)
	kind, data := "", []byte(nil)
	for s.Scan() {
		alive()
		line := s.Text()
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if kind == eventEnd {
				return nil
			}
			if data != nil {
				if err := f(kind, data); err != nil {
					return err
				}
			}
			kind, data = "", nil
		case field == "event":
			kind = value
		case field == "data":
			if data != nil {
				data = append(data, '\n')
			}
			data = append(data, value...)
		}
	}
	return io.ErrUnexpectedEOF
}

// writer writes an event stream. Not safe for concurrent use.
type writer struct {
	w    http.ResponseWriter
	ctl  *http.ResponseController
	open bool
}

// newWriter makes a stream of w; nothing is sent before the first event, so that an error can still be a plain problem.
func newWriter(w http.ResponseWriter) *writer {
	return &writer{w: w, ctl: http.NewResponseController(w)}
}

// writePatience is how long one write of a stream may take: a client that takes nothing for so long is gone. A minute, so that a
// person may stop a terminal and read.
const writePatience = time.Minute

// begin sends the header.
func (s *writer) begin() {
	if s.open {
		return
	}
	s.open = true
	h := s.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	s.w.WriteHeader(http.StatusOK)
}

// put writes one event without sending it yet.
func (s *writer) put(kind string, id int64, item any) error {
	s.begin()
	b, err := json.Marshal(item)
	if err != nil {
		return err
	}
	_ = s.ctl.SetWriteDeadline(time.Now().Add(writePatience))
	if id != 0 {
		if _, err := fmt.Fprintf(s.w, "id: %d\n", id); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", kind, b)
	return err
}

// send writes one event and sends it.
func (s *writer) send(kind string, id int64, item any) error {
	if err := s.put(kind, id, item); err != nil {
		return err
	}
	return s.flush()
}

// beat sends a comment, which shows that the server is there.
func (s *writer) beat() error {
	s.begin()
	_ = s.ctl.SetWriteDeadline(time.Now().Add(writePatience))
	if _, err := io.WriteString(s.w, ":\n\n"); err != nil {
		return err
	}
	return s.flush()
}

// flush sends what was put.
func (s *writer) flush() error { return s.ctl.Flush() }
