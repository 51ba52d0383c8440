package join

import (
	"context"
	"net/netip"
	"time"

	"flota/internal/admit"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/trust"
)

// belong is what a machine does once it is in: it shows itself, renews its certificate, and leaves if that is its part.
func (j *joiner) belong(ctx context.Context) {
	i, out := j.member()
	for ; i == nil; i, out = j.member() {
		if out != nil || !wait(ctx, time.Second) {
			return
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if j.stays {
		j.w.late.Go(func() {
			present(ctx, j.w.store, machine.Presence{ID: j.id, Name: j.name}, func() bool { return !j.w.wasRemoved(j.id, time.Now()) })
		})
	}
	left := false
	for next := j.pause(); wait(ctx, time.Second); next -= time.Second {
		if next > 0 && !j.w.wasRemoved(j.id, time.Now()) {
			continue
		}
		if next = j.pause(); j.kind == "leaver" && !left {
			left = j.leave(ctx, i)
		}
		if !j.renews(ctx, i) {
			return
		}
	}
}

// pause is until the machine does something again.
func (j *joiner) pause() time.Duration { return time.Duration(10+j.rnd.IntN(110)) * time.Second }

// leave takes the machine out of the cluster; false: to be tried again.
func (j *joiner) leave(ctx context.Context, i *trust.Identity) bool {
	p := j.w.seats[j.rnd.IntN(len(j.w.seats))].current()
	if p == nil {
		return false
	}
	d := admit.New(admit.Options{Store: store.New(p.client), Identity: i, ID: j.id, Name: j.name, Now: j.clock})
	err := d.Leave(ctx, admit.RemoveOptions{})
	j.w.tell("--- %s leaves: %v", j.name, err)
	return err == nil
}

// renews asks any voter for a new certificate, and for what only voters get; false when the machine is none of the cluster's any more.
func (j *joiner) renews(ctx context.Context, i *trust.Identity) bool {
	s := j.w.seats[j.rnd.IntN(len(j.w.seats))]
	before := time.Now()
	err := i.Renew(ctx, func(ctx context.Context, csr []byte) (g trust.Grant, err error) {
		err = s.ask(ctx, func(ctx context.Context, d *admit.Desk) (err error) { g, err = d.Renew(ctx, j.id, csr); return err })
		return g, err
	})
	was := j.w.wasRemoved(j.id, before)
	switch {
	case err == nil && was:
		j.w.fail("%s was removed and gets a certificate", j.name)
	case fault.Is(err, fault.Denied) && !j.w.wasRemoved(j.id, time.Now().Add(1)):
		j.w.fail("%s is a member and gets no certificate: %v", j.name, err)
	case err == nil:
		j.w.checkIdentity(j, i)
	}
	secret := s.ask(ctx, func(ctx context.Context, d *admit.Desk) error { _, err := d.Authority(ctx, j.id); return err })
	if k := fault.KindOf(secret); k != fault.Denied && k != fault.Unavailable && k != fault.TimedOut {
		j.w.fail("%s, which does not vote, asks for the authority's key and hears: %v", j.name, secret)
	}
	return !fault.Is(err, fault.Denied)
}

// shutOut checks that a machine that is no member, or no more, gets nothing at any voter, whatever it asks for.
func (j *joiner) shutOut() {
	ctx := j.w.t.Context()
	csr, err := trust.Request(j.trust, trust.Subject{ID: j.id, Name: j.name, IPs: []netip.Addr{netip.MustParseAddr(j.addr)}})
	j.w.must(err)
	for _, s := range j.w.seats {
		for what, ask := range map[string]func(ctx context.Context, d *admit.Desk) error{
			"join": func(ctx context.Context, d *admit.Desk) error {
				q := j.q
				q.Clock = s.clock()
				_, err := d.Admit(ctx, q)
				return err
			},
			"renew":     func(ctx context.Context, d *admit.Desk) error { _, err := d.Renew(ctx, j.id, csr); return err },
			"authority": func(ctx context.Context, d *admit.Desk) error { _, err := d.Authority(ctx, j.id); return err },
		} {
			err := s.ask(ctx, ask)
			if k := fault.KindOf(err); err == nil || k != fault.Denied && !(what == "join" && k == fault.Exists) {
				j.w.fail("%s is no member, asks %s for %q, and hears: %v", j.name, s.name, what, err)
			}
		}
	}
}
