package admit

import (
	"context"
	"testing"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/trust"
)

// csr makes a request for a renewal of an identity.
func (b *bed) csr(i *trust.Identity) (out []byte) {
	b.t.Helper()
	err := i.Renew(b.t.Context(), func(_ context.Context, csr []byte) (trust.Grant, error) {
		out = csr
		return trust.Grant{}, fault.New(fault.Unavailable, "only looked")
	})
	if !fault.Is(err, fault.Unavailable) {
		b.t.Fatal(err)
	}
	return out
}

func TestRenew(t *testing.T) {
	b := newBed(t)
	ids := b.members(3)
	two := b.newDesk(ids[1], b.mem, 2)
	if two.Holds() {
		t.Error("a machine without a vote holds the authority's key")
	}
	b.pass(20 * 24 * time.Hour) // its certificate expired long ago
	if err := ids[1].Renew(t.Context(), func(ctx context.Context, csr []byte) (trust.Grant, error) { return b.desk.Renew(ctx, idOf(2), csr) }); err != nil {
		t.Fatal(err)
	}
	if left := ids[1].Expires().Sub(b.clock()); left < trust.Life-time.Minute {
		t.Errorf("it holds for %s", left)
	}
	if _, err := two.Renew(t.Context(), idOf(2), b.csr(ids[1])); !fault.Is(err, fault.Unavailable) {
		t.Errorf("where no key is: %v", err)
	}
	if _, err := b.desk.Renew(t.Context(), idOf(3), b.csr(ids[1])); !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Denied) {
		t.Errorf("for another: %v", err)
	}
	other := b.joiner(2, "")
	if _, err := b.desk.Renew(t.Context(), idOf(2), other.q.CSR); !fault.Is(err, fault.Denied) {
		t.Errorf("with another key: %v", err)
	}
	b.dead(3)
	if err := b.desk.Remove(t.Context(), "m3", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := b.desk.Renew(t.Context(), idOf(3), b.csr(ids[2]))
	refused(t, err, fault.Denied, `removed from the cluster as "m3"`)
	b.kv.Down(true)
	if _, err := b.desk.Renew(t.Context(), idOf(2), b.csr(ids[1])); !fault.Is(err, fault.Unavailable) {
		t.Errorf("without a quorum: %v", err)
	}
}

func TestAuthority(t *testing.T) {
	b := newBed(t)
	ids := b.members(3)
	if _, err := b.desk.Authority(t.Context(), idOf(2)); !fault.Is(err, fault.Denied) {
		t.Errorf("a client got the key: %v", err)
	}
	b.vote(2, machine.Learner)
	keys, err := b.desk.Authority(t.Context(), idOf(2))
	if err != nil {
		t.Fatal(err)
	}
	if err := ids[1].KeepAuthority(keys); err != nil {
		t.Fatal(err)
	}
	two := b.newDesk(ids[1], b.mem, 2)
	b.in(two, b.joiner(4, b.token(NewToken{}).Text)) // by the new voter
	if _, err := b.newDesk(ids[2], b.mem, 3).Authority(t.Context(), idOf(2)); !fault.Is(err, fault.Unavailable) {
		t.Errorf("of one that holds none: %v", err)
	}
}

// The authority changes while all machines follow it, and a voter that knows nothing of it carries it on.
func TestRotate(t *testing.T) {
	b := newBed(t)
	ids := b.members(4)
	b.vote(2, machine.Voter)
	old := ids[0].CAHash()
	var desks []*Desk
	for n, i := range ids {
		d := b.newDesk(i, b.mem, n+1)
		d.o.Keys = func(ctx context.Context) (keys []byte, err error) {
			for _, other := range desks {
				if keys, err = other.Authority(ctx, idOf(n+1)); err == nil {
					return keys, nil
				}
			}
			return nil, err
		}
		desks = append(desks, d)
	}
	for n, d := range desks {
		background(t, d.Run)
		background(t, func(ctx context.Context) error {
			return ids[n].Run(ctx, func(ctx context.Context, csr []byte) (g trust.Grant, err error) {
				for _, voter := range desks[:2] {
					if g, err = voter.Renew(ctx, idOf(n+1), csr); err == nil {
						return g, nil
					}
				}
				return g, err
			})
		})
	}
	until(t, "the second voter has the key", desks[1].Holds)
	if err := desks[0].Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused(t, desks[1].Rotate(t.Context()), fault.Conflict, "already")
	until(t, "the authority has changed everywhere", func() bool {
		tr, err := desks[0].Trust(t.Context())
		if err != nil || tr.Rotation != trust.Steady || len(tr.Authorities) != 1 || tr.Authorities[0] == old {
			return false
		}
		for _, i := range ids {
			s := i.Standing()
			if len(s.Trusts) != 1 || s.Trusts[0] != tr.Authorities[0] || s.Issuer != s.Trusts[0] {
				return false
			}
		}
		return true
	})
	b.in(desks[1], b.joiner(9, b.token(NewToken{}).Text))
	if e, _, _ := b.st.Cluster.Get(t.Context(), store.ThisCluster, store.Read{}); e.Value.ID != ids[0].Cluster() || e.Value.Created.IsZero() {
		t.Errorf("%+v", e.Value)
	}
}
