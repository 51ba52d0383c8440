package api

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"path"
	"strings"
	"time"

	"flota/internal/api/fleet"
	"flota/internal/fault"
)

// maxDoorBody is the largest body of a machine that is not known yet: a request for a certificate is 1 KB, labels some more.
const maxDoorBody = 64 << 10

// guard refuses requests that are not for us, and reads the body of the others so that no handler waits for a slow client.
func (s *Server) guard(k Kind, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fail := s.problem
		if fleet.Serves(r.URL.Path) {
			fail = s.fleetProblem
		}
		if p := r.URL.Path; path.Clean(p) != strings.TrimSuffix(p, "/") && p != "/" { // which the mux would answer with a redirect
			fail(w, r, fault.New(fault.Invalid, "path %q has empty parts or dots in it", clip(p)))
			return
		}
		if k == Plain {
			if err := s.fromBrowser(r); err != nil {
				fail(w, r, err)
				return
			}
		}
		if k == Joiners || k == Renewers { // nobody yet, who gets no memory for nothing
			r.Body = http.MaxBytesReader(w, r.Body, maxDoorBody)
		}
		if err := readBody(w, r); err != nil {
			fail(w, r, err)
			return
		}
		if !fleet.Serves(r.URL.Path) { // which has its own rules and words for it
			if err := contentType(r); err != nil {
				fail(w, r, err)
				return
			}
		}
		h.ServeHTTP(w, r)
	})
}

// fleetProblem answers with err in fleet's form.
func (s *Server) fleetProblem(w http.ResponseWriter, r *http.Request, err error) {
	p := ProblemOf(err, s.Name)
	fleet.Fail(w, p.Status, p.Detail)
}

// fromBrowser refuses what a web page could send to a listener on loopback: anything with an Origin, and a Host that
// is a name of the page's own (DNS rebinding).
func (s *Server) fromBrowser(r *http.Request) error {
	if o := r.Header.Get("Origin"); o != "" {
		return fault.New(fault.Denied, "requests of web pages are refused (Origin: %s)", clip(o))
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if net.ParseIP(host) != nil || strings.EqualFold(host, "localhost") || strings.EqualFold(host, s.Name) {
		return nil
	}
	return fault.WithHint(fault.New(fault.Denied, "host %q is not this machine", clip(host)), "use its IP address, localhost, or %s", s.Name)
}

// contentType refuses a change that is not sent as JSON, which no web page can send unasked: 415.
func contentType(r *http.Request) error {
	if r.Method != http.MethodPut && r.Method != http.MethodPost && r.Method != http.MethodPatch {
		return nil
	}
	given := r.Header.Get("Content-Type")
	if t, _, err := mime.ParseMediaType(given); err == nil && t == "application/json" {
		return nil
	}
	return withStatus(http.StatusUnsupportedMediaType,
		fault.WithHint(fault.New(fault.Invalid, "content type %q is not accepted", clip(given)), "send Content-Type: application/json"))
}

// readBody reads the body into memory. One that is too large is dropped but, within reason, read to its end: a client that
// is still sending when the connection closes would get a reset and never see the answer.
func readBody(w http.ResponseWriter, r *http.Request) error {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nil
	}
	if r.ContentLength > maxBody && strings.EqualFold(r.Header.Get("Expect"), "100-continue") {
		return tooLarge(r.ContentLength, "") // the client waits for leave to send it
	}
	ctl := http.NewResponseController(w)
	_ = ctl.SetReadDeadline(time.Now().Add(bodyPatience))
	defer func() { _ = ctl.SetReadDeadline(time.Time{}) }()
	b, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "read the body")
	}
	if len(b) <= maxBody {
		r.Body = io.NopCloser(bytes.NewReader(b))
		return nil
	}
	n, err := io.Copy(io.Discard, io.LimitReader(r.Body, maxDrain))
	switch size := n + int64(len(b)); {
	case r.ContentLength > 0:
		return tooLarge(r.ContentLength, "")
	case err == nil && n < maxDrain:
		return tooLarge(size, "")
	default:
		return tooLarge(size, "more than ")
	}
}

// tooLarge is the answer to a body above maxBody: 413.
func tooLarge(size int64, more string) error {
	return withStatus(http.StatusRequestEntityTooLarge, fault.WithHint(
		fault.New(fault.Invalid, "the request is %s%s large, the limit is %s", more, megabytes(size), megabytes(maxBody)),
		"a unit file is at most 1 MiB"))
}

// megabytes prints a size in bytes and, for a person, in MiB.
func megabytes(n int64) string { return fmt.Sprintf("%d bytes (%.1f MiB)", n, float64(n)/(1<<20)) }

// clip shortens what a client sent, for a message.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
