package agent

import (
	"context"
	"time"

	"flota/internal/fault"
	"flota/internal/store"
)

// fenceMargin is how much earlier than the end of the lease exclusive units are stopped by force. 1 s, for clocks that run at
// different speed and a supervisor that is slow to kill. Source: DESIGN.md section 6.
const fenceMargin = time.Second

// renewTries is in how many parts the interval of renewals is cut after one that failed.
const renewTries = 4

// renewing names the work of this file in the log.
const renewing = "renew the presence"

// lease is the one that the presence and the states are under.
type lease struct {
	id        store.LeaseID // 0: none
	sent      time.Time     // when the last grant or renewal that succeeded was asked for: it lasts from then at least
	confirmed bool          // the presence is under it: nobody else takes this machine for lost before its end
	fenced    bool          // the driver has been told of it: exclusive units may start
}

// keepLease grants a lease and renews it; when it is lost, another. Until ctx ends.
func (a *Agent) keepLease(ctx context.Context) {
	var again backoff
	for ctx.Err() == nil {
		sent := time.Now()
		id, err := a.opts.Store.KV.Grant(ctx, a.opts.TTL)
		a.noteStore(renewing, err)
		if err != nil {
			again.wait(ctx, nil)
			continue
		}
		again = 0
		a.setLease(lease{id: id, sent: sent})
		a.renew(ctx, id)
	}
}

// renew keeps the lease until it is lost or ctx ends.
func (a *Agent) renew(ctx context.Context, id store.LeaseID) {
	wait := a.opts.Renew
	for pause(ctx, wait, nil) {
		sent := time.Now()
		try, cancel := context.WithTimeout(ctx, a.opts.Renew)
		err := a.opts.Store.KV.Renew(try, id)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if fault.Is(err, fault.NotFound) {
			a.opts.Log.Warn("this machine's presence was lost: the cluster takes it for gone; announcing it anew")
			a.setLease(lease{})
			return
		}
		a.noteStore(renewing, err)
		if err != nil {
			wait = a.opts.Renew / renewTries
			continue
		}
		wait = a.opts.Renew
		a.mu.Lock()
		a.lease.sent = sent
		a.mu.Unlock()
		poke(a.fences)
	}
}

// setLease makes l the lease; everything is published again under it.
func (a *Agent) setLease(l lease) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lease = l
	poke(a.report)
}

// confirm notes that the presence is under the lease.
func (a *Agent) confirm(id store.LeaseID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lease.id != id || a.lease.confirmed {
		return
	}
	a.lease.confirmed = true
	poke(a.fences)
}

// keepFence tells the driver after each renewal how long exclusive units may live without another one. It has a goroutine of
// its own, so that a driver that hangs does not cost the lease.
func (a *Agent) keepFence(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.fences:
		}
		a.mu.Lock()
		l := a.lease
		a.mu.Unlock()
		if l.confirmed && a.fence(ctx, time.Until(l.sent.Add(a.opts.TTL-fenceMargin))) {
			a.unlock(l.id)
		}
	}
}

// unlock lets exclusive units start, after the fence was set for the first time under the lease.
func (a *Agent) unlock(id store.LeaseID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lease.id != id || a.lease.fenced {
		return
	}
	a.lease.fenced = true
	for name, w := range a.wanted.list {
		if w.exclusive {
			a.settle(name)
		}
	}
}

// fence sets the fence and says whether it did; what has run out already is left to run out.
func (a *Agent) fence(ctx context.Context, left time.Duration) bool {
	if left <= 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	err := a.opts.Driver.Fence(ctx, left)
	if err != nil && ctx.Err() == nil {
		a.opts.Log.Warn("the fence of exclusive units cannot be extended; they stop when it runs out", "err", err)
	}
	return err == nil
}
