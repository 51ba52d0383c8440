package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"flota/internal/api"
	"flota/internal/fault"
)

func TestMain(m *testing.M) {
	time.Local = time.UTC // screens show local times
	goleak.VerifyTestMain(m)
}

// exited is what Env.Exit gives here.
type exited int

func (e exited) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// buffer may be written and read by several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// server is a machine's API that answers what a test wants, and remembers what it was asked.
type server struct {
	t    *testing.T
	sock string
	mux  *http.ServeMux

	mu    sync.Mutex
	asked []string // "POST /v1/leave {…}"
}

// newServer starts one; it ends with the test.
func newServer(t *testing.T) *server {
	t.Helper()
	dir, err := os.MkdirTemp("", "cluster") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, sock: filepath.Join(dir, "s"), mux: http.NewServeMux()}
	l, err := net.Listen("unix", s.sock)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.asked = append(s.asked, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+string(b)))
		s.mu.Unlock()
		s.mux.ServeHTTP(w, r)
	})}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() {
		_ = srv.Close()
		wg.Wait()
		_ = os.RemoveAll(dir)
	})
	return s
}

// answers has a route answer with values as JSON, one after another, the last one again and again.
func (s *server) answers(route string, values ...any) {
	var mu sync.Mutex
	s.mux.HandleFunc(route, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		v := values[0]
		if len(values) > 1 {
			values = values[1:]
		}
		mu.Unlock()
		if err, bad := v.(error); bad {
			p := api.ProblemOf(err, "m1")
			w.WriteHeader(p.Status)
			v = p
		}
		_ = json.NewEncoder(w).Encode(v)
	})
}

// tells has a route tell steps, and end with an error, or well, or (hold) only when the client goes away.
func (s *server) tells(route string, err error, hold bool, steps ...string) {
	s.mux.HandleFunc(route, func(w http.ResponseWriter, r *http.Request) {
		send := func(kind string, v any) {
			b, _ := json.Marshal(v)
			fmt.Fprintf(w, "event: %s\ndata: %s\n\n", kind, b)
			w.(http.Flusher).Flush()
		}
		for _, text := range steps {
			send("step", api.Step{Text: text})
		}
		switch {
		case hold:
			<-r.Context().Done()
		case err != nil:
			send("problem", api.ProblemOf(err, "m1"))
		default:
			send("end", struct{}{})
		}
	})
}

// was wants the requests that were made, in order.
func (s *server) was(want ...string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.Join(s.asked, "\n") != strings.Join(want, "\n") {
		s.t.Errorf("asked\n%s\nwant\n%s", strings.Join(s.asked, "\n"), strings.Join(want, "\n"))
	}
}

// world is what one command line runs in.
type world struct {
	s         *server // nil: no cluster
	in        io.Reader
	vars      map[string]string
	out, errs buffer
	json      bool
}

// run is one command line: `flota args`.
func (w *world) run(ctx context.Context, args ...string) error {
	root := &cobra.Command{Use: "flota", SilenceErrors: true, SilenceUsage: true}
	root.PersistentFlags().BoolVar(&w.json, "json", false, "")
	if w.in == nil {
		w.in = strings.NewReader("")
	}
	env := Env{In: w.in, Out: &w.out, Err: &w.errs, JSON: func() bool { return w.json },
		Getenv:   func(k string) string { return w.vars[k] },
		API:      w.api,
		Exit:     func(code int) error { return exited(code) },
		Help:     func(c *cobra.Command, _ []string) error { return c.Help() },
		Machines: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) { return []string{"m1"}, 4 },
		DataDir:  "/var/lib/flota", PeerPort: 7701,
	}
	cmds := (&tool{Env: env, poll: 5 * time.Millisecond}).commands()
	machine := &cobra.Command{Use: "machine"}
	machine.AddCommand(cmds.Remove)
	root.AddCommand(cmds.Token, cmds.Trust, cmds.Backup, cmds.Leave, cmds.Recover, cmds.Restore, machine)
	root.SetOut(&w.out)
	root.SetErr(&w.errs)
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

// api gives a client of its cluster.
func (w *world) api() (*api.Client, error) {
	if w.s == nil {
		return nil, fault.New(fault.Unavailable, "no cluster here")
	}
	return api.NewClient([]string{"unix://" + w.s.sock}, api.ClientOptions{})
}

// screen is what a command prints: standard output, then standard error behind a line of dashes.
func (w *world) screen() string {
	text := w.out.String()
	if e := w.errs.String(); e != "" {
		text += "--\n" + e
	}
	return text
}

// wants runs a command that must succeed and compares its screen.
func wants(t *testing.T, s *server, want string, args ...string) {
	t.Helper()
	w := &world{s: s}
	if err := w.run(t.Context(), args...); err != nil {
		t.Fatalf("flota %s: %v\n%s", strings.Join(args, " "), err, w.screen())
	}
	if got := w.screen(); got != want {
		t.Errorf("flota %s:\n%s\nwant\n%s", strings.Join(args, " "), got, want)
	}
}

// fails runs a command that must fail with an error of the kind and with words in its message or hint.
func (w *world) fails(t *testing.T, kind fault.Kind, words string, args ...string) {
	t.Helper()
	err := w.run(t.Context(), args...)
	if !fault.Is(err, kind) || !strings.Contains(err.Error()+" "+fault.Hint(err), words) {
		t.Errorf("flota %s: %v (%s; hint %q), want %s and %q", strings.Join(args, " "), err, fault.KindOf(err), fault.Hint(err), kind, words)
	}
}

// has wants words in a text.
func has(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q is missing in:\n%s", w, text)
		}
	}
}

// await waits until yes, or fails after 10 s.
func await(t *testing.T, what string, yes func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(10 * time.Second); !yes(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// terminal gives the two ends of a pseudo-terminal: a person's, and the program's.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { _ = person.Close() })
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return person, program
}

// types runs a command at a terminal, where a person answers each prompt.
func (w *world) types(t *testing.T, answers map[string]string, args ...string) error {
	t.Helper()
	person, program := terminal(t)
	w.in = program
	ended := make(chan error, 1)
	go func() { ended <- w.run(t.Context(), args...) }()
	left := map[string]string{}
	for k, v := range answers {
		left[k] = v
	}
	for end := time.After(30 * time.Second); ; {
		select {
		case err := <-ended:
			if len(left) > 0 {
				t.Errorf("flota %s: was not asked %v\n%s", strings.Join(args, " "), left, w.screen())
			}
			return err
		case <-end:
			t.Fatalf("flota %s does not end:\n%s", strings.Join(args, " "), w.screen())
		case <-time.After(2 * time.Millisecond):
		}
		for prompt, line := range left {
			if strings.HasSuffix(w.errs.String(), prompt) {
				delete(left, prompt)
				if _, err := person.WriteString(line + "\n"); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}
