package trust

import (
	"crypto/x509"
	"slices"

	"flota/internal/fault"
)

// Authority gives the authority that issues now. fault.NotFound on a machine that does not hold its key: only voters do.
func (i *Identity) Authority() (*Authority, error) {
	s := i.now.Load()
	for _, a := range s.ring {
		if same(a.cert, s.trusted[0]) {
			return a, nil
		}
	}
	return nil, fault.New(fault.NotFound, "this machine does not hold the key of authority %s", i.CAHash())
}

// Keys is all that KeepAuthority of a machine that becomes a voter wants: the authorities whose keys lie here, with their keys, PEM.
// fault.NotFound where the issuing one's is not among them.
func (i *Identity) Keys() ([]byte, error) {
	if _, err := i.Authority(); err != nil {
		return nil, err
	}
	return writeRing(i.now.Load().ring)
}

// KeepAuthority adds authorities with their keys to those kept on this machine's disk (0600), as Authority.PEM or Keys gave them. One that is
// trusted no more, and was not made to follow one that is, is left out: a voter that is late in a change of the authority may still hand it
// out. Repeating it is free. fault.Invalid; fault.Conflict if all are left out.
func (i *Identity) KeepAuthority(text []byte) error {
	more, err := readRing(text)
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	s := *i.now.Load()
	ring := slices.Clone(s.ring)
	more = slices.DeleteFunc(more, func(a *Authority) bool { return !a.belongs(s.trusted) })
	if len(more) == 0 {
		return fault.New(fault.Conflict, "none of the authorities is trusted here")
	}
	for _, a := range more {
		if !holds(ring, a.cert) {
			ring = append(ring, a)
		}
	}
	if len(ring) == len(s.ring) {
		return nil
	}
	if len(ring) > maxRing {
		return fault.New(fault.Conflict, "this machine keeps %d authorities' keys, at most %d", len(ring), maxRing)
	}
	return i.setRing(&s, ring)
}

// maxRing bounds the authorities whose keys one machine keeps: the trusted ones, and as many that were made and not used.
const maxRing = 2 * maxBundle

// DropAuthority forgets all authorities' keys: for a machine that votes no more. Repeating it is free.
func (i *Identity) DropAuthority() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := *i.now.Load()
	if s.ring == nil {
		return nil
	}
	return i.setRing(&s, nil)
}

// setRing stores ring as the authorities kept, under mu.
func (i *Identity) setRing(s *state, ring []*Authority) error {
	if err := i.writeRing(ring); err != nil {
		return err
	}
	s.ring = ring
	i.now.Store(s)
	return nil
}

// holds says whether c's key is in ring.
func holds(ring []*Authority, c *x509.Certificate) bool {
	return slices.ContainsFunc(ring, func(a *Authority) bool { return same(a.cert, c) })
}

// Successor gives the authority that is to follow the issuing one, and keeps its key: one that was made here before and was not used, else a
// new one. Nobody trusts it yet: see Rotation. fault.NotFound on a machine that does not hold the issuing authority's key.
func (i *Identity) Successor() (*Authority, error) {
	old, err := i.Authority()
	if err != nil {
		return nil, err
	}
	s := i.now.Load()
	for _, a := range s.ring {
		trusted := slices.ContainsFunc(s.trusted, func(c *x509.Certificate) bool { return same(c, a.cert) })
		if !trusted && a.follows(old.cert) {
			return a, nil
		}
	}
	next, err := NewAuthority(s.subject.Cluster, old, i.o.Now())
	if err != nil {
		return nil, err
	}
	text, err := next.PEM()
	if err != nil {
		return nil, err
	}
	return next, i.KeepAuthority(text)
}
