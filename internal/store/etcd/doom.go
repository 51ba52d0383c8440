package etcd

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap/zapcore"

	"flota/internal/fault"
)

// doomPatience is how long a member that has failed gets to end. Longer than it takes one to stop in peace, 2 s at most.
const doomPatience = 5 * time.Second

// doom is what a member does where etcd would end the process: it logs, and ends the goroutine that found the trouble. The rest of etcd may
// stand still then, so that nobody may wait for it any more.
type doom struct {
	fell chan struct{} // closed when the member has failed
	once sync.Once
	err  error // set before fell is closed
}

func newDoom() *doom { return &doom{fell: make(chan struct{})} }

// OnWrite implements zapcore.CheckWriteHook.
func (d *doom) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	d.once.Do(func() {
		d.err = errors.New(e.Message)
		for _, f := range fields {
			if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
				d.err = fmt.Errorf("%s: %w", e.Message, err)
			}
		}
		close(d.fell)
	})
	runtime.Goexit()
}

// why gives the reason, nil if the member has not failed.
func (d *doom) why() error {
	select {
	case <-d.fell:
		return d.err
	default:
		return nil
	}
}

// guard does a call into etcd that may meet the trouble, and so never return, in a goroutine of its own. A member that has stopped panics where its
// database was: that is an error too.
func (n *Node) guard(call func() error) error {
	done, err := make(chan struct{}), error(nil)
	go func() {
		defer close(done)
		e := fault.New(fault.Unavailable, "the store's member has failed")
		defer func() {
			if p := recover(); p != nil {
				e = n.panicked(p)
			}
			err = e
		}()
		e = call()
	}()
	select {
	case <-done:
		return err
	case <-n.doom.fell:
		return fault.Wrap(fault.Unavailable, n.doom.err, "the store's member has failed")
	}
}

// panicked is the error for a panic in etcd.
func (n *Node) panicked(p any) error {
	select {
	case <-n.etcd.Server.StoppingNotify():
		return errStopped
	default:
		n.log.Error("the store's member panicked", "why", p)
		return fault.New(fault.Internal, "the store's member: %v", p)
	}
}

var errStopped = fault.New(fault.Unavailable, "the store's member on this machine has stopped")

// lost refuses calls to a member that has stopped.
func (n *Node) lost() error {
	select {
	case <-n.etcd.Server.StoppingNotify():
		return errStopped
	default:
		return nil
	}
}

// attempt is the guard for what needs no running member.
func (d *doom) attempt(call func() error) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		e := errors.New("etcd gave up")
		defer func() {
			if p := recover(); p != nil {
				e = fmt.Errorf("%v", p)
			}
			err = e
		}()
		e = call()
	}()
	<-done
	if why := d.why(); why != nil {
		return why
	}
	return err
}

// launch is embed.StartEtcd, with an error for what etcd calls fatal.
func launch(cfg *embed.Config, d *doom) (e *embed.Etcd, err error) {
	err = d.attempt(func() (err error) {
		e, err = embed.StartEtcd(cfg)
		return err
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}
