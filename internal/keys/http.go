package keys

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/version"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Limits of HTTP requests.
const (
	headerBytes = 64 << 10              // of a request's header
	bodyBytes   = 3*valueBytes + 64<<10 // a value of 1 MiB takes up to 3 MiB in a form, where a byte may be written as %xx
	smallBytes  = 64 << 10              // a body that many clients may send at once
	largeAtOnce = 64                    // larger bodies at once; more wait
	headerWait  = 5 * time.Second
	bodyWait    = 30 * time.Second
	writeWait   = 30 * time.Second // for a client to take what was sent to it last
	idleWait    = 5 * time.Minute  // of a connection between requests
	healthWait  = 2 * time.Second
)

// handler serves everything that is not gRPC.
func (f *Front) handler(gateway http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/version", f.version)
	mux.HandleFunc("/health", f.health)
	mux.Handle("/v3/", gateway)
	mux.Handle("/v3beta/", gateway)
	if f.v2 != nil {
		mux.Handle("/v2/", f.permitV2(f.v2))
	}
	return f.polite(mux)
}

// polite refuses what web pages send, reads bodies before anybody works on them, and gives up on clients that take nothing.
func (f *Front) polite(h http.Handler) http.Handler {
	large := make(chan struct{}, largeAtOnce)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.Auth == nil && fromPage(r) {
			httpError(w, http.StatusForbidden, codes.PermissionDenied, "requests of web pages are refused")
			return
		}
		if !isStream(r) {
			if code, text := readBody(w, r, large); code != 0 {
				grpcCode := codes.InvalidArgument
				if code == http.StatusServiceUnavailable {
					grpcCode = codes.ResourceExhausted
				}
				httpError(w, code, grpcCode, text)
				return
			}
		}
		h.ServeHTTP(&patient{ResponseWriter: w}, r)
	})
}

// isStream says whether the request's body may go on while it is answered.
func isStream(r *http.Request) bool {
	return r.ContentLength < 0 && (strings.HasSuffix(r.URL.Path, "/watch") || strings.HasSuffix(r.URL.Path, "/lease/keepalive"))
}

// fromPage says whether a web page may have sent the request: it has an Origin, or a Host that anybody may have registered (DNS rebinding). A page
// could otherwise write keys through the browser of whoever looks at it. Requests with a token are not refused: pages have none.
func fromPage(r *http.Request) bool {
	if r.Header.Get("Origin") != "" {
		return true
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return false
	}
	return strings.Contains(strings.TrimSuffix(host, "."), ".") && !strings.HasSuffix(host, ".localhost")
}

// readBody reads the body into memory. It gives the status of what was wrong, 0 if nothing was.
func readBody(w http.ResponseWriter, r *http.Request, large chan struct{}) (code int, text string) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return 0, ""
	}
	if r.ContentLength > bodyBytes {
		return tooLarge(w, r)
	}
	ctl := http.NewResponseController(w)
	_ = ctl.SetReadDeadline(time.Now().Add(bodyWait)) // a connection that cannot do it fails when it is read
	defer func() { _ = ctl.SetReadDeadline(time.Time{}) }()
	if r.ContentLength < 0 || r.ContentLength > smallBytes {
		wait, cancel := context.WithTimeout(r.Context(), bodyWait)
		defer cancel()
		select {
		case large <- struct{}{}:
			defer func() { <-large }()
		case <-wait.Done():
			return http.StatusServiceUnavailable, "too many large requests at once"
		}
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, bodyBytes+1))
	switch {
	case err != nil:
		return http.StatusBadRequest, "the body could not be read: " + err.Error()
	case len(b) > bodyBytes:
		return tooLarge(w, r)
	}
	r.Body = io.NopCloser(bytes.NewReader(b))
	return 0, ""
}

// drainBytes is how much of a body that is too large is read and dropped, so that a client that is still sending gets to read the answer.
const drainBytes = 64 << 20

func tooLarge(w http.ResponseWriter, r *http.Request) (int, string) {
	if !strings.EqualFold(r.Header.Get("Expect"), "100-continue") {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyWait))
		_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, drainBytes))
	}
	return http.StatusRequestEntityTooLarge, fmt.Sprintf("etcdserver: request is too large: more than %d bytes; a value is at most %d", bodyBytes, valueBytes)
}

// patient gives every write a deadline, so that a client that takes nothing does not hold memory for ever.
type patient struct{ http.ResponseWriter }

// Write implements http.ResponseWriter.
func (p *patient) Write(b []byte) (int, error) {
	_ = http.NewResponseController(p.ResponseWriter).SetWriteDeadline(time.Now().Add(writeWait))
	return p.ResponseWriter.Write(b)
}

// Flush implements http.Flusher.
func (p *patient) Flush() {
	ctl := http.NewResponseController(p.ResponseWriter)
	_ = ctl.SetWriteDeadline(time.Now().Add(writeWait))
	_ = ctl.Flush() // fails as the next write does
}

// Unwrap lets http.ResponseController find the connection.
func (p *patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// httpError answers in the gateway's form.
func httpError(w http.ResponseWriter, code int, c codes.Code, text string) {
	b, _ := json.Marshal(struct { // strings and a number
		Error   string     `json:"error"`
		Message string     `json:"message"`
		Code    codes.Code `json:"code"`
	}{text, text, c})
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n'))
}

// permitV2 asks for a token that covers the key and all keys below it, since a v2 request may mean those too.
func (f *Front) permitV2(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, ok := strings.CutPrefix(r.URL.Path, "/v2/keys")
		if f.Auth == nil || !ok {
			h.ServeHTTP(w, r)
			return
		}
		gr, err := f.guard.check(r.Context(), Credentials(r.Header.Get("Authorization")))
		change := r.Method != http.MethodGet && r.Method != http.MethodHead
		key = "/" + strings.Trim(key, "/")
		if err == nil && !(gr.Allows([]byte(key), nil, change) && gr.Allows([]byte(strings.TrimSuffix(key, "/")+"/"), []byte(strings.TrimSuffix(key, "/")+"0"), change)) {
			err = errNotGranted
		}
		if err != nil {
			refuseV2(w, err)
			return
		}
		if !change { // it may wait for as long as it likes
			w = &watched{ResponseWriter: w, still: func() bool {
				_, err := f.guard.check(r.Context(), Credentials(r.Header.Get("Authorization")))
				return err == nil
			}}
		}
		h.ServeHTTP(w, r)
	})
}

// watched lets nothing more through once the token that opened the request does not count any more.
type watched struct {
	http.ResponseWriter
	still func() bool
}

// Write implements http.ResponseWriter.
func (x *watched) Write(b []byte) (int, error) {
	if !x.still() {
		return 0, errNotGranted
	}
	return x.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController find the connection.
func (x *watched) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// refuseV2 answers as etcd's v2 API does: error 110.
func refuseV2(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	if status.Code(err) == codes.Unavailable {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(`{"errorCode":300,"message":"Raft Internal Error","cause":"the tokens are not known yet","index":0}` + "\n"))
		return
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="keys"`)
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = w.Write([]byte(`{"errorCode":110,"message":"The request requires user authentication","cause":"Insufficient credentials","index":0}` + "\n"))
}

// version answers GET /version as etcd does.
func (f *Front) version(w http.ResponseWriter, r *http.Request) {
	if !onlyGet(w, r) {
		return
	}
	cluster := version.Cluster(version.Version) + ".0"
	if f.Node != nil {
		if v := f.Node.Server().ClusterVersion(); v != nil {
			cluster = v.String()
		}
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"etcdserver":%q,"etcdcluster":%q}`, version.Version, cluster)
}

// health answers GET /health as etcd does: whether a quorum answers.
func (f *Front) health(w http.ResponseWriter, r *http.Request) {
	if !onlyGet(w, r) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), healthWait)
	defer cancel()
	w.Header().Set("Content-Type", "application/json")
	if _, err := f.apps.Get(ctx, "health"); err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, `{"health":"false","reason":%q}`, err.Error())
		return
	}
	_, _ = io.WriteString(w, `{"health":"true"}`)
}

func onlyGet(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", http.MethodGet)
	http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
	return false
}
