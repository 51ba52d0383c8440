// Package process is the driver that runs .service units as plain processes, without systemd: the client of a separate
// supervisor process (room supervise), which it starts, upgrades in place and starts again when it died.
//
// The invariant: a Driver holds no state of a unit. Whatever dies - the agent, the driver, the supervisor - the units run on, and the
// next Open finds them. Only PowerCut ends things by force.
// It never starts a unit's process itself.
//
// Start reading at Open, then call in client.go.
package process

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"flota/internal/driver"
	"flota/internal/driver/home"
	"flota/internal/driver/journal"
	"flota/internal/driver/proc"
	"flota/internal/driver/supervise"
	"flota/internal/driver/wire"
	"flota/internal/fault"
)

// Options say how to reach, and start, the supervisor of a data directory.
type Options struct {
	DataDir string // made if need be; its path plus "/supervisor.sock" may have 107 bytes
	Exe     string // the binary to run as supervisor; "" is this program's own
	// Args start the supervisor; nil is "supervise --data-dir DataDir", and the journal's bounds if they are set.
	Args []string
	Log  *slog.Logger // nil logs nothing
	// Env is added to the environment of a supervisor that is started; setup.Environment hands FLOTA_MACHINE, FLOTA_ADDR and FLOTA_KEYS on to
	// every unit.
	Env []string
	// Strict refuses to load units with restricting keys that cannot be honoured here; otherwise State.Notes tells of them.
	Strict bool
}

// Driver is the process driver. Make one with Open. Safe for concurrent use.
type Driver struct {
	o    Options
	home home.Home
	http *http.Client

	mu    sync.Mutex // guards the fields below; held while a supervisor is being started
	child int        // PID of the supervisor that this Driver started, to be reaped
}

var _ driver.Driver = (*Driver)(nil)

// Supervise is the supervisor itself, for the command `flota supervise`; see supervise.Run.
func Supervise(ctx context.Context, dataDir string, log *slog.Logger, j journal.Options) error {
	dir, err := filepath.Abs(dataDir)
	if err != nil {
		return err
	}
	return supervise.Run(ctx, supervise.Options{DataDir: dir, Log: log, Journal: j})
}

// Open connects to the data directory's supervisor, started if there is none, and re-executed in place if it runs
// another binary than Exe. It changes no unit. fault.Invalid if DataDir's path is too long, fault.Unavailable if
// the supervisor does not answer within ctx or 10 s.
func Open(ctx context.Context, o Options) (*Driver, error) {
	dir, err := filepath.Abs(o.DataDir)
	if err != nil {
		return nil, err
	}
	at, err := home.At(dir)
	if err != nil {
		return nil, err
	}
	if o.Exe == "" {
		if o.Exe, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("find own binary: %w", err)
		}
	}
	if o.Args == nil {
		o.Args = []string{"supervise", "--data-dir", dir}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	d := &Driver{o: o, home: at, http: client(at)}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var alive wire.Alive
	if err := d.call(ctx, "hello", wire.Call{}, &alive); err != nil {
		return nil, err
	}
	if alive.Binary != "" && alive.Binary != home.Fingerprint(o.Exe) {
		o.Log.Info("the supervisor runs another binary; it is re-executed", "pid", alive.PID)
		if err := d.ReExec(ctx); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// client speaks to the supervisor at a place, whichever process that is now.
func client(at home.Home) *http.Client {
	var dial net.Dialer
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dial.DialContext(ctx, "unix", at.Socket())
		},
		// Connections that are kept would meet the supervisor of before after a re-exec; the socket is local and cheap to dial.
		DisableKeepAlives: true,
	}}
}

// Shutdown stops all units of a data directory cleanly and ends its supervisor; nil if none runs. See Driver.Shutdown.
func Shutdown(ctx context.Context, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	at, err := home.At(dir)
	if err != nil || at.PID() == 0 {
		return err
	}
	d := &Driver{o: Options{Log: slog.New(slog.DiscardHandler)}, home: at, http: client(at)}
	return d.Shutdown(ctx)
}

// ReExec makes the supervisor become Options.Exe in place: its PID, its children and all units stay. It
// returns when the new one answers.
func (d *Driver) ReExec(ctx context.Context) error {
	if err := d.call(ctx, "reexec", wire.Call{Exe: d.o.Exe}, nil); err != nil {
		return fmt.Errorf("re-execute the supervisor: %w", err)
	}
	want := home.Fingerprint(d.o.Exe)
	for {
		var alive wire.Alive
		err := d.call(ctx, "hello", wire.Call{}, &alive)
		if err == nil && alive.Binary == want && alive.Fresh {
			return nil
		}
		if err == nil && alive.Fresh {
			return fault.New(fault.Failed, "the supervisor did not become %s; its log tells why", d.o.Exe)
		}
		select {
		case <-ctx.Done():
			return fault.Wrap(fault.Unavailable, ctx.Err(), "wait for the supervisor's re-execution")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Shutdown stops all units cleanly and ends the supervisor; it returns when the process is gone.
func (d *Driver) Shutdown(ctx context.Context) error {
	pid := d.home.PID()
	st, there := proc.Look(pid)
	if err := d.call(ctx, "shutdown", wire.Call{}, nil); err != nil {
		return err
	}
	for d.home.PID() != 0 {
		select {
		case <-ctx.Done():
			return fault.Wrap(fault.TimedOut, ctx.Err(), "wait for the supervisor's end")
		case <-time.After(10 * time.Millisecond):
		}
	}
	if there {
		if err := proc.Wait(ctx, pid, st.Ticks); err != nil {
			return fault.Wrap(fault.TimedOut, err, "wait for the supervisor's end")
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reap()
	return nil
}

// PID gives the supervisor's PID; 0 if there is none now.
func (d *Driver) PID() int { return d.home.PID() }

// ensure starts a supervisor if nobody holds the lock.
func (d *Driver) ensure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.home.PID() != 0 {
		return nil // it is there and will answer, or is just changing
	}
	if d.reap(); d.child != 0 {
		return nil // on its way to the lock
	}
	return d.spawn()
}

// reap takes the end of a supervisor that this process started, so that it is not left as a zombie.
func (d *Driver) reap() {
	if d.child != 0 {
		if pid, err := syscall.Wait4(d.child, nil, syscall.WNOHANG, nil); pid != 0 || err != nil {
			d.child = 0
		}
	}
}

// spawn starts a supervisor in a session of its own. What it says before it has its own log goes to logs/supervisor.err.
func (d *Driver) spawn() error {
	logs := filepath.Join(d.home.Dir, "logs")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return fmt.Errorf("make directory of the supervisor: %w", err)
	}
	out, err := os.OpenFile(filepath.Join(logs, "supervisor.err"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the supervisor's output: %w", err)
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	p, err := os.StartProcess(d.o.Exe, append([]string{d.o.Exe}, d.o.Args...), &os.ProcAttr{
		Dir: "/", Env: append(os.Environ(), d.o.Env...), Files: []*os.File{null, out, out}, Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		return fmt.Errorf("start the supervisor: %w", err)
	}
	d.child = p.Pid
	d.o.Log.Info("supervisor started", "pid", p.Pid)
	return p.Release()
}
