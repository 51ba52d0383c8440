package process

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"flota/internal/driver/wire"
	"flota/internal/fault"
)

// reachFor is how long a call looks for a supervisor that is being replaced, before it gives fault.Unavailable. A
// re-exec takes about 50 ms; a busy machine may need seconds.
const reachFor = 5 * time.Second

// maxLine bounds one JSON line of a stream; the first line of a watch holds the states of all units.
const maxLine = 256 << 20

// post sends one request and gives the answer's body, reaching for the supervisor until it is there.
func (d *Driver) post(ctx context.Context, name string, body any) (io.ReadCloser, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(reachFor)
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		answer, err := d.once(ctx, name, text)
		if err == nil || !fault.Is(err, fault.Unavailable) || ctx.Err() != nil || time.Now().After(deadline) {
			return answer, err
		}
		if err := d.ensure(); err != nil {
			return nil, fault.Wrap(fault.Unavailable, err, "no supervisor")
		}
		select {
		case <-ctx.Done():
			return nil, fault.Wrap(fault.Unavailable, err, "no supervisor")
		case <-time.After(wait):
		}
	}
}

// once sends one request. Errors of the connection are fault.Unavailable; all requests are safe to repeat.
func (d *Driver) once(ctx context.Context, name string, text []byte) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://supervisor/v1/"+name, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	resp, err := d.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fault.Wrap(fault.Unavailable, err, "the supervisor does not answer%s", d.lastWords())
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	var p wire.Problem
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&p); err != nil {
		return nil, fault.New(fault.Internal, "the supervisor answered %s", resp.Status)
	}
	return nil, p.Err()
}

// lastWords gives what a supervisor that could not start said, for the error message.
func (d *Driver) lastWords() string {
	text, err := os.ReadFile(filepath.Join(d.home.Dir, "logs", "supervisor.err"))
	if text = bytes.TrimSpace(text); err != nil || len(text) == 0 {
		return ""
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return " (it said: " + line + ")"
}

// call sends a request and reads the answer into out, unless that is nil.
func (d *Driver) call(ctx context.Context, name string, body, out any) error {
	answer, err := d.post(ctx, name, body)
	if err != nil {
		return err
	}
	defer answer.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(answer).Decode(out); err != nil {
		return fault.Wrap(fault.Unavailable, err, "the supervisor's answer was cut off")
	}
	return nil
}

// errEnd ends lines early without an error.
var errEnd = errors.New("enough")

// lines calls f with each line of an answer. nil at its end and when ctx ends; f's error.
func lines(ctx context.Context, answer io.ReadCloser, f func([]byte) error) error {
	defer answer.Close()
	defer context.AfterFunc(ctx, func() { answer.Close() })()
	in := bufio.NewScanner(answer)
	in.Buffer(make([]byte, 0, 64<<10), maxLine)
	for in.Scan() {
		if ctx.Err() != nil {
			return nil
		}
		if err := f(in.Bytes()); err != nil {
			if err == errEnd {
				return nil
			}
			return err
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return fault.New(fault.Unavailable, "the supervisor is gone")
}
