package trust

import (
	"context"
	"crypto/x509"
	"math/rand/v2"
	"slices"
	"time"

	"flota/internal/fault"
)

// Ask hands a request for a certificate to the cluster and gives its answer.
type Ask func(ctx context.Context, csr []byte) (Grant, error)

// The rhythm of renewals.
const (
	renewWithin = 30 * time.Second       // for one renewal, so that an answer that never comes is asked for again
	selfAfter   = 5 * time.Second        // see OrSelf
	lookEvery   = time.Minute            // how often Run looks at the wall clock: timers stand still while a host sleeps, and clocks are set
	retryFirst  = 500 * time.Millisecond // pause after a failure; doubles
	retryLast   = 5 * time.Minute        // longest pause, or a twentieth of the leaf's life if that is less
	wakeEvery   = time.Minute            // least time between renewals that Wake asks for, or a twentieth of the leaf's life
	freshFor    = time.Minute            // a leaf younger than this is not renewed when Run begins, or a twentieth of its life
)

// Renew asks for a new certificate, once, and takes it. One that fails changes nothing. Errors are those of ask, and fault.Invalid for an answer
// that does not fit this machine.
func (i *Identity) Renew(ctx context.Context, ask Ask) error {
	i.renewing.Lock()
	defer i.renewing.Unlock()
	s, _ := i.want()
	csr, err := s.request(i.key)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, renewWithin)
	defer cancel()
	g, err := ask(ctx, csr)
	if err != nil {
		return err
	}
	return i.take(g)
}

// take makes a grant this machine's own.
func (i *Identity) take(g Grant) error {
	now := i.o.Now()
	s, err := granted(g, i.key, now)
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	has := i.now.Load()
	if s.subject.ID != has.subject.ID || s.subject.Cluster != has.subject.Cluster {
		return fault.New(fault.Invalid, "the cluster granted a certificate for machine %s of cluster %s, this is %s of %s",
			s.subject.ID.Short(), s.subject.Cluster, has.subject.ID.Short(), has.subject.Cluster)
	}
	if !slices.ContainsFunc(has.trusted, func(c *x509.Certificate) bool { return issuedBy(s.leaf, c) }) {
		// Only then: else a voter that is late in a change of the authority would take this machine back to a bundle that is over.
		if err := i.setBundle(g.Bundle); err != nil {
			return err
		}
	}
	if err := i.setEpoch(max(g.Epoch, has.epoch)); err != nil {
		return err
	}
	if err := i.disk.write(leafFile, certPEM(s.certs()...), 0o644); err != nil {
		return fault.Wrap(fault.Internal, err, "store the new certificate")
	}
	next := *i.now.Load()
	next.subject, next.leaf, next.chain = s.subject, s.leaf, s.chain
	i.now.Store(&next)
	i.pressed = false
	return nil
}

// Self is an Ask for machines that hold the authority's key: it grants itself, without asking anyone. For when the cluster cannot be asked: all
// voters were off for longer than their leaves' life. Where the cluster can be asked, ask it: it knows whether this machine was removed, or
// the authority changed. fault.NotFound where no key is held.
func (i *Identity) Self(_ context.Context, csr []byte) (Grant, error) {
	a, err := i.Authority()
	if err != nil {
		return Grant{}, err
	}
	s, _, err := ReadRequest(csr)
	if err != nil {
		return Grant{}, err
	}
	has := i.now.Load()
	if s.ID != has.subject.ID || s.Cluster != has.subject.Cluster {
		return Grant{}, fault.New(fault.Denied, "a machine grants certificates by itself only to itself")
	}
	cert, err := a.Issue(csr, s, i.o.Life, i.o.Now())
	return Grant{Certificate: cert, Bundle: i.Bundle(), Cluster: has.subject.Cluster, Epoch: has.epoch}, err
}

// OrSelf is the Ask of a voter: ask, and where that cannot reach the cluster and less than a tenth of the certificate's life is left, Self. ask gets 5 s
// then: the voters that it waits for may wait for this one's certificate.
func (i *Identity) OrSelf(ask Ask) Ask {
	return func(ctx context.Context, csr []byte) (Grant, error) {
		s := i.now.Load()
		if s.leaf.NotAfter.Sub(i.o.Now()) > s.life()/10 {
			return ask(ctx, csr)
		}
		short, cancel := context.WithTimeout(ctx, selfAfter)
		defer cancel()
		g, err := ask(short, csr)
		if k := fault.KindOf(err); err == nil || k != fault.Unavailable && k != fault.TimedOut {
			return g, err
		}
		if g, own := i.Self(ctx, csr); own == nil {
			return g, nil
		}
		return Grant{}, err
	}
}

// Wake asks Run for a renewal soon, whatever the leaf's age: for whoever learns that the others do not believe this machine's certificate, as
// after a change of the authority that it slept through. At most one a minute. Dial does it by itself.
func (i *Identity) Wake() {
	now := i.o.Now()
	i.mu.Lock()
	defer i.mu.Unlock()
	if d := now.Sub(i.asked); d >= 0 && d < min(wakeEvery, i.now.Load().life()/20) {
		return
	}
	i.asked, i.pressed = now, true
	i.stir()
}

// stir makes Run look whether the certificate is still the one that is wanted.
func (i *Identity) stir() {
	select {
	case i.wake <- struct{}{}:
	default: // it is going to look
	}
}

// life is how long the leaf was valid when it was made.
func (s *state) life() time.Duration { return s.leaf.NotAfter.Sub(s.leaf.NotBefore) - backdate }

// made is when the leaf was made, by the clock of the machine that issued it.
func (s *state) made() time.Time { return s.leaf.NotBefore.Add(backdate) }

// current says whether the leaf was issued by the authority that issues now.
func (s *state) current() bool { return issuedBy(s.leaf, s.trusted[0]) }

// Run renews the certificate until ctx ends: at half its life, or up to a tenth of that earlier, so that machines that joined together do not
// renew together; at once when it begins, because much may have happened while this machine was off; and whenever it is no longer the
// certificate that is wanted. What fails is tried again after 0.5 s to 5 min. It returns nil, when ctx ends.
func (i *Identity) Run(ctx context.Context, ask Ask) error {
	next := i.due()
	if s := i.now.Load(); i.o.Now().Sub(s.made()) > min(freshFor, s.life()/20) {
		next = time.Time{}
	}
	pause := time.Duration(0) // > 0 after a failure
	for i.until(ctx, next, pause) {
		err := i.Renew(ctx, ask)
		if err == nil && i.unwanted() {
			err = fault.New(fault.Unavailable, "the cluster granted a certificate of an authority or with a name that is out of date")
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			pause, next = 0, i.due()
			i.o.Log.Info("certificate renewed", "expires", i.Expires(), "next", next)
		default:
			pause = min(max(2*pause, retryFirst), retryLast, max(i.now.Load().life()/20, retryFirst))
			next = i.o.Now().Add(pause)
			i.o.Log.Warn("renew the certificate", "err", err, "expires", i.Expires(), "retry", pause)
		}
	}
	return nil
}

// due is when the leaf is to be renewed.
func (i *Identity) due() time.Time {
	s := i.now.Load()
	half := s.life() / 2
	if half <= 0 {
		return time.Time{}
	}
	return s.leaf.NotAfter.Add(-half - rand.N(half/10+1))
}

// unwanted says that the leaf is not the one that is wanted: another authority issues now, the machine is described otherwise, or Wake was called.
func (i *Identity) unwanted() bool {
	_, differs := i.want()
	i.mu.Lock()
	defer i.mu.Unlock()
	return differs || i.pressed || !i.now.Load().current()
}

// until waits for next by the wall clock; pause > 0 is the longest it may last, whatever is done to the clock. Without a pause it also ends when
// the leaf is unwanted. false: ctx ended.
func (i *Identity) until(ctx context.Context, next time.Time, pause time.Duration) bool {
	for ctx.Err() == nil {
		left := next.Sub(i.o.Now())
		if left <= 0 || pause == 0 && i.unwanted() {
			return true
		}
		if pause > 0 {
			left = min(left, pause)
		}
		t := time.NewTimer(min(left, lookEvery))
		began := time.Now()
		select {
		case <-ctx.Done():
		case <-i.wake:
		case <-t.C:
		}
		t.Stop()
		if pause > 0 {
			if pause -= time.Since(began); pause <= 0 {
				return true
			}
		}
	}
	return false
}

// Valid is when this machine's certificate was made, and the end of its life.
func (i *Identity) Valid() (made, until time.Time) {
	s := i.now.Load()
	return s.made(), s.leaf.NotAfter
}
