package keycmd

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"flota/internal/fault"
)

// lockTTL is how long a lock is held by a program that died. 10 s: an election of etcd, and a machine's death, end well within it.
const lockTTL = 10 * time.Second

// unlockPatience is how long giving a lock back may take; if it fails, the lock ends with its lease.
const unlockPatience = 3 * time.Second

// lockFlags are what `flota key lock` may be told.
type lockFlags struct{ ttl, wait span }

// newLock is `flota key lock`.
func (k *keys) newLock() *cobra.Command {
	f := lockFlags{ttl: span(lockTTL)}
	c := &cobra.Command{
		Use:   "lock NAME -- COMMAND...",
		Short: "Run a command while holding a lock, and pass its exit code on",
		Long: `Run a command while holding a lock that nobody else in the cluster holds, and pass its exit code on. Who asks first gets it first. The lock is the one
that etcd's clients know as /NAME (etcdctl lock /NAME, concurrency.NewMutex); its keys lie below /NAME.

The command knows FLOTA_LOCK_KEY, which exists for as long as the lock is held, and FLOTA_LOCK_REVISION, which is larger for each holder than
for the one before: what the command writes to can refuse a late write by it. A lock cannot stop a command: if it is lost, because the cluster could
not be reached for --ttl, the command gets SIGTERM, after 5 s SIGKILL, and the exit code is 6.`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if at := cmd.ArgsLenAtDash(); at != 1 {
				return fault.WithHint(fault.New(fault.Invalid, "want the name of a lock, -- and a command"), "flota key lock NAME -- COMMAND ARG...")
			}
			name, err := k.key(args[0])
			if err != nil {
				return err
			}
			return k.lock(cmd.Context(), name, f, args[1:])
		},
	}
	c.Flags().Var(&f.ttl, "ttl", "how long the lock outlives a program that died")
	c.Flags().Var(&f.wait, "wait", "give up (exit code 7) if the lock is not free within this time (default: wait as long as it takes)")
	return c
}

// lock runs a command under the lock.
func (k *keys) lock(ctx context.Context, name string, f lockFlags, command []string) error {
	c, err := k.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	req, cancel := k.bounded(ctx)
	l, err := c.Grant(req, f.ttl.seconds())
	cancel()
	if err != nil {
		return problem(ctx, err)
	}
	held, err := concurrency.NewSession(c, concurrency.WithLease(l.ID))
	if err != nil {
		return problem(ctx, err)
	}
	defer release(c, held)
	m := concurrency.NewMutex(held, name)
	if err := k.acquire(ctx, m, name, f.wait); err != nil {
		return err
	}
	lost := make(chan struct{})
	run, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() { // ends with the session, at the latest by release
		<-held.Done()
		stop(errLost)
		close(lost)
	}()
	err = k.runHolding(run, m, command)
	if errors.Is(context.Cause(run), errLost) {
		<-lost
		return fault.New(fault.Unavailable, "the lock %s was lost while the command ran; it was ended", name)
	}
	return err
}

// errLost ends a command whose lock is gone.
var errLost = errors.New("the lock is lost")

// acquire waits for the lock.
func (k *keys) acquire(ctx context.Context, m *concurrency.Mutex, name string, patience span) error {
	wait, cancel := ctx, context.CancelFunc(func() {})
	if patience > 0 {
		wait, cancel = context.WithTimeout(ctx, time.Duration(patience))
	}
	defer cancel()
	err := m.Lock(wait)
	if err != nil && wait.Err() != nil && ctx.Err() == nil {
		return fault.WithHint(fault.New(fault.TimedOut, "the lock %s was not free within %s", name, patience.String()),
			"the first key of flota key ls -r -a %s is its holder's", name)
	}
	return problem(ctx, err)
}

// release gives the lock back by ending its lease.
func release(c *clientv3.Client, s *concurrency.Session) {
	s.Orphan()
	ctx, cancel := context.WithTimeout(context.Background(), unlockPatience)
	defer cancel()
	_, _ = c.Revoke(ctx, s.Lease()) // it ends by itself otherwise
}

// runHolding runs the command with the lock in its environment.
func (k *keys) runHolding(ctx context.Context, m *concurrency.Mutex, command []string) error {
	c := exec.CommandContext(ctx, command[0], command[1:]...)
	c.Stdin, c.Stdout, c.Stderr = k.In, k.Out, k.Err
	c.Env = append(os.Environ(), "FLOTA_LOCK_KEY="+m.Key(), "FLOTA_LOCK_REVISION="+strconv.FormatInt(m.Header().Revision, 10))
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = killAfter
	err := c.Run()
	switch code := exitCode(err); {
	case code < 0:
		return notRun(k, err)
	case code > 0:
		return k.Exit(code)
	}
	return nil
}
