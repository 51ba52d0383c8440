// Package supervise is the separate process that owns the units of one machine data directory: it starts them, keeps them by
// room lifecycle's rules, and answers one unix socket. Package process is its client.
//
// The invariant: a unit is never started twice at once, not lost and not left without an owner, whatever dies and when.
// For that, each unit's record is on disk before a process of it is started and after; output goes through a FIFO that nobody's
// death breaks; and a new supervisor (a re-exec in place, or one after a kill) finds its processes by PID and start
// time and goes on. Only requests and the fence end units: a signal to the supervisor never does.
//
// One goroutine per unit (actor) does everything for it in turn, so a stuck unit never delays another.
// It decides nothing that room lifecycle can decide. It is larger than most rooms because it is the one place
// where the decisions of lifecycle meet launch, cgroup, journal, disk and signals.
//
// Start reading at Run, then actor.go, then adopt.go; bonds.go is where units start and stop because of others.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"flota/internal/driver/board"
	"flota/internal/driver/cgroup"
	"flota/internal/driver/fence"
	"flota/internal/driver/home"
	"flota/internal/driver/journal"
	"flota/internal/driver/launch"
	"flota/internal/driver/reap"
	"flota/internal/driver/relation"
	"flota/internal/driver/setup"
	"flota/internal/fault"
	"flota/internal/service"
	"flota/internal/unit"
)

// Options say where a supervisor works.
type Options struct {
	DataDir string          // absolute; everything is kept below it
	Log     *slog.Logger    // nil writes to DataDir/logs/supervisor.log, two files of 1 MiB at most
	Journal journal.Options // bounds of each unit's output
}

// supervisor is the process's one state.
type supervisor struct {
	o      Options
	log    *slog.Logger
	home   home.Home
	finger string // of the binary that this process runs
	host   service.Host
	can    launch.Host
	tree   *cgroup.Tree
	board  *board.Board
	reaper reap.Reaper
	fence  *fence.Fence
	lock   *os.File // the locked supervisor.pid
	ctx    context.Context

	mu     sync.Mutex // guards the fields below
	actors map[unit.Name]*actor
	bonds  relation.Loaded // of all actors
	frozen bool            // a re-exec is under way: nothing new begins
	next   string          // binary to become
	quit   chan struct{}   // closed to end Run
	wg     sync.WaitGroup

	closing atomic.Bool // all units are being stopped: none is started for another

	// flight counts what is under way between a child and its actor; patience ends its waiting when the supervisor ends.
	flight   sync.WaitGroup
	patience context.Context
}

// Run is the supervisor: it adopts what an earlier one left, serves until ctx ends, SIGTERM or a request to shut down, and leaves the
// units running (shutdown stops them first). SIGUSR2 and a request re-execute it in place; then Run does not return.
// fault.Exists if another supervisor has this data directory.
func Run(ctx context.Context, o Options) error {
	at, err := home.At(o.DataDir)
	if err != nil {
		return err
	}
	s, err := prepare(ctx, at, o)
	if err != nil {
		return err
	}
	defer s.lock.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.ctx = ctx
	patience, impatient := context.WithCancel(context.Background())
	defer impatient()
	s.patience = patience
	// Children's ends are noted from before the first record is read.
	reaping := make(chan struct{})
	go func() {
		defer close(reaping)
		s.reaper.Run(ctx)
	}()
	s.adopt()
	ears, err := s.listen()
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGUSR2, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	s.log.Info("supervisor started", "pid", os.Getpid(), "units", len(s.actors), "cgroup", s.tree.Support().Mode)
	for {
		select {
		case <-ctx.Done():
		case <-s.quit:
		case sig := <-signals:
			switch sig {
			case syscall.SIGHUP:
				continue // the terminal of whoever started it is gone
			case syscall.SIGUSR2:
				s.reexec("")
				continue
			}
		}
		break
	}
	s.log.Info("supervisor ends; units keep running")
	cancel()
	ears.close()
	s.fence.Stop()
	// An end that was reaped must be in its record before the actors stand still; later ones wait as zombies for the next supervisor.
	<-reaping
	defer time.AfterFunc(execPatience, impatient).Stop()
	s.flight.Wait()
	s.freeze()
	s.wg.Wait()
	if s.next != "" {
		return s.become()
	}
	return nil
}

// execPatience is how long a supervisor that ends waits for processes between fork and exec; that takes some 20 ms.
const execPatience = 2 * time.Second

// prepare makes the data directory's places and takes the lock.
func prepare(ctx context.Context, at home.Home, o Options) (*supervisor, error) {
	for _, dir := range []string{at.Dir, at.Units(), filepath.Join(at.Dir, "logs")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make %s: %w", dir, err)
		}
	}
	lock, err := takeLock(at)
	if err != nil {
		return nil, err
	}
	s := &supervisor{o: o, log: o.Log, home: at, finger: home.Fingerprint("/proc/self/exe"), can: launch.LookHost(),
		board: board.New(), lock: lock, actors: map[unit.Name]*actor{}, bonds: relation.Loaded{}, quit: make(chan struct{}), ctx: ctx}
	if s.log == nil {
		s.log = slog.New(slog.NewTextHandler(&home.LogFile{Path: filepath.Join(at.Dir, "logs", "supervisor.log")}, nil))
	}
	s.host = setup.LookHost(at.Dir)
	s.fence = fence.Open(at, s.fenceOut)
	if s.tree, err = cgroup.Open(cgroup.Options{Key: at.Key()}); err != nil {
		lock.Close()
		return nil, fmt.Errorf("open control groups: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		s.log.Warn("orphans of units will not come here", "err", err)
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-900"), 0); err != nil {
		s.log.Debug("oom score left as it is", "err", err) // not root
	}
	unix.Umask(0o022)
	if err := os.Chdir("/"); err != nil {
		return nil, err
	}
	return s, nil
}

// lockVariable tells a re-executed supervisor which file descriptor holds its lock.
const lockVariable = "FLOTA_SUPERVISOR_LOCK"

// takeLock makes this process the only supervisor of the directory: an flock on supervisor.pid, kept across a re-exec.
func takeLock(p home.Home) (*os.File, error) {
	var fd int
	if n, err := fmt.Sscan(os.Getenv(lockVariable), &fd); n == 1 && err == nil {
		os.Unsetenv(lockVariable)
		unix.CloseOnExec(fd)
		return os.NewFile(uintptr(fd), p.Lock()), nil
	}
	f, err := os.OpenFile(p.Lock(), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	for try := 0; unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil; try++ {
		if try == 20 { // somebody may only look whether it is locked (home.PID)
			f.Close()
			return nil, fault.New(fault.Exists, "another supervisor has %s", p.Dir)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := fmt.Fprintf(f, "%d\n", os.Getpid()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// all gives the actors of this moment.
func (s *supervisor) all() []*actor {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*actor, 0, len(s.actors))
	for _, a := range s.actors {
		out = append(out, a)
	}
	return out
}

// find gives a loaded unit's actor.
func (s *supervisor) find(name unit.Name) (*actor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.actors[name]; a != nil {
		return a, nil
	}
	return nil, fault.New(fault.NotFound, "unit %q is not loaded here", name)
}

// end makes Run return.
func (s *supervisor) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.quit:
	default:
		close(s.quit)
	}
}

// reexec makes the process become the binary exe ("" is its own) in place, children and PID kept.
func (s *supervisor) reexec(exe string) {
	if exe == "" {
		exe = "/proc/self/exe"
		if path, err := os.Executable(); err == nil {
			if _, err := os.Stat(path); err == nil {
				exe = path
			}
		}
	}
	s.mu.Lock()
	s.next = exe
	s.mu.Unlock()
	s.end()
}

// freeze stops all actors between two events; their records are on disk then.
func (s *supervisor) freeze() {
	s.mu.Lock()
	s.frozen = true
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, a := range s.all() {
		wg.Go(a.freeze)
	}
	wg.Wait()
}

// become executes the next binary. It returns only on failure, and then tries its own binary.
func (s *supervisor) become() error {
	fd := int(s.lock.Fd())
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
		return fmt.Errorf("keep the lock: %w", err)
	}
	env := append(os.Environ(), fmt.Sprintf("%s=%d", lockVariable, fd))
	var errs []error
	for _, exe := range []string{s.next, "/proc/self/exe"} {
		s.log.Info("supervisor re-executes itself", "exe", exe)
		errs = append(errs, syscall.Exec(exe, os.Args, env))
	}
	return errors.Join(errs...)
}

// later calls f after d, unless the supervisor ends first.
func (s *supervisor) later(d time.Duration, f func()) {
	t := time.AfterFunc(d, f)
	context.AfterFunc(s.ctx, func() { t.Stop() })
}
