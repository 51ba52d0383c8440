package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"flota/internal/driver/wire"
	"flota/internal/fault"
	"flota/internal/unit"
)

// ears is the listening side.
type ears struct {
	server *http.Server
	done   chan struct{}
}

// listen opens the socket and serves it.
func (s *supervisor) listen() (*ears, error) {
	path := s.home.Socket()
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) { // we hold the lock: nobody else's
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	e := &ears{done: make(chan struct{})}
	e.server = &http.Server{Handler: s.routes(), MaxHeaderBytes: 16 << 10, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 5 * time.Minute,
		BaseContext: func(net.Listener) context.Context { return s.ctx }}
	go func() {
		defer close(e.done)
		if err := e.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("the socket is not served any more", "err", err)
			s.end()
		}
	}()
	return e, nil
}

// close ends the listening; running calls have a moment to answer.
func (e *ears) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if e.server.Shutdown(ctx) != nil {
		e.server.Close()
	}
	<-e.done
}

// routes is the protocol.
func (s *supervisor) routes() http.Handler {
	mux := http.NewServeMux()
	answer := func(name string, f func(ctx context.Context, c wire.Call) (any, error)) {
		mux.HandleFunc("POST /v1/"+name, func(w http.ResponseWriter, r *http.Request) {
			var c wire.Call
			s.reply(w, r, &c, func() (any, error) { return f(r.Context(), c) })
		})
	}
	on := func(name string, f func(ctx context.Context, a *actor, c wire.Call) error) {
		answer(name, func(ctx context.Context, c wire.Call) (any, error) {
			a, err := s.find(c.Unit)
			if err != nil {
				return nil, err
			}
			return nil, f(ctx, a, c)
		})
	}
	mux.HandleFunc("POST /v1/load", func(w http.ResponseWriter, r *http.Request) {
		var l wire.Loading
		s.reply(w, r, &l, func() (any, error) { return nil, s.load(r.Context(), l) })
	})
	on("start", func(ctx context.Context, a *actor, c wire.Call) error {
		return a.ask(ctx, func() error { return a.askStart(c.Run) })
	})
	on("stop", func(ctx context.Context, a *actor, _ wire.Call) error { return a.ask(ctx, a.askStop) })
	on("reset", func(ctx context.Context, a *actor, _ wire.Call) error { return a.ask(ctx, a.askReset) })
	on("reload", func(ctx context.Context, a *actor, _ wire.Call) error { return a.reload(ctx) })
	answer("unload", func(ctx context.Context, c wire.Call) (any, error) { return nil, s.unload(ctx, c.Unit) })
	answer("states", func(context.Context, wire.Call) (any, error) { return s.board.All(), nil })
	answer("stats", func(ctx context.Context, _ wire.Call) (any, error) { return s.stats(ctx) })
	answer("fence", func(_ context.Context, c wire.Call) (any, error) { return nil, s.extendFence(c.At, c.Until) })
	answer("hello", func(context.Context, wire.Call) (any, error) { return s.hello(), nil })
	answer("reexec", func(_ context.Context, c wire.Call) (any, error) { return nil, s.askReexec(c.Exe) })
	answer("shutdown", func(ctx context.Context, _ wire.Call) (any, error) { return nil, s.shutdown(ctx) })
	mux.HandleFunc("POST /v1/watch", s.watch)
	mux.HandleFunc("POST /v1/logs", s.logs)
	return mux
}

// reply reads a body, does the work and writes what came of it.
func (s *supervisor) reply(w http.ResponseWriter, r *http.Request, body any, work func() (any, error)) {
	w.Header().Set(wire.BinaryHeader, s.finger)
	w.Header().Set("Content-Type", "application/json")
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, wire.MaxBody)).Decode(body)
	if err != nil {
		err = fault.New(fault.Invalid, "request body: %v", err)
	}
	var out any
	if err == nil {
		out, err = work()
	}
	if err != nil {
		w.WriteHeader(http.StatusConflict)
		out = problem(err)
	}
	json.NewEncoder(w).Encode(out) // a client that went away has no use for an error
}

// problem puts an error on the wire.
func problem(err error) wire.Problem {
	if errors.Is(err, context.Canceled) {
		err = fault.Wrap(fault.Unavailable, err, "the supervisor is being replaced")
	}
	return wire.Problem{Kind: fault.KindOf(err), Message: err.Error(), Hint: fault.Hint(err)}
}

// watch streams states.
func (s *supervisor) watch(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(wire.BinaryHeader, s.finger)
	out, control := json.NewEncoder(w), http.NewResponseController(w)
	_ = s.board.Watch(r.Context(), func(states []unit.State, first bool) error {
		if err := out.Encode(wire.Told{States: states, First: first}); err != nil {
			return err
		}
		return control.Flush()
	})
}
