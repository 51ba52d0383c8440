package admit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/mem"
	"flota/internal/trust"
)

func TestToken(t *testing.T) {
	b := newBed(t)
	c := b.token(NewToken{Labels: map[string]string{"zone": "a"}})
	if c.Token.Uses != 1 || c.Token.Expires.Sub(c.Token.Created) != time.Hour || c.Token.Hash != "" {
		t.Errorf("defaults: %+v", c.Token)
	}
	want := "flota up --join 10.0.0.1:7700 --token " + c.Text + " --ca-hash " + b.desk.o.Identity.CAHash()
	if c.Command != want || c.Note != "" {
		t.Errorf("command %q, note %q, want %q", c.Command, c.Note, want)
	}
	all, err := b.desk.Tokens(t.Context())
	if err != nil || len(all) != 1 || all[0].Hash != "" || all[0].ID != c.Token.ID {
		t.Errorf("%+v, %v", all, err)
	}
	for _, bad := range []NewToken{{TTL: -1}, {TTL: 1000 * 24 * time.Hour}, {Uses: -1}, {Uses: 2000}, {Labels: map[string]string{"a b": ""}}} {
		if _, err := b.desk.CreateToken(t.Context(), bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if err := b.desk.Revoke(t.Context(), c.Token.ID); err != nil {
		t.Error(err)
	}
	refused(t, b.desk.Revoke(t.Context(), c.Token.ID), fault.NotFound, "no such join token")
	c = b.token(NewToken{})
	if err := b.desk.Revoke(t.Context(), c.Text); err != nil {
		t.Errorf("by the whole token: %v", err)
	}
}

func TestCommandOfMachinesOnLoopback(t *testing.T) {
	b := newBed(t)
	b.desk.o.Addrs = func() []string { return []string{"127.7.0.1:7700"} }
	b.dead(1)
	c := b.token(NewToken{})
	if !strings.Contains(c.Command, "--join 127.7.0.1:7700 ") || !strings.Contains(c.Note, "this host alone") {
		t.Errorf("%q, %q", c.Command, c.Note)
	}
	b.alive(1) // with an address off loopback
	if c = b.token(NewToken{}); !strings.Contains(c.Command, "--join 10.0.0.1:7700 ") || c.Note != "" {
		t.Errorf("%q, %q", c.Command, c.Note)
	}
}

func TestJoin(t *testing.T) {
	b := newBed(t)
	c := b.token(NewToken{Labels: map[string]string{"zone": "a"}})
	if err := b.st.Machines.Put(t.Context(), string(idOf(2)), machine.Machine{ID: idOf(2), Labels: map[string]string{"early": "yes"}}, 0); err != nil {
		t.Fatal(err)
	}
	j := b.joiner(2, c.Text)
	j.q.Witness = true
	i := b.in(b.desk, j)
	if i.ID() != idOf(2) || i.Cluster() != b.desk.o.Identity.Cluster() || i.CAHash() != b.desk.o.Identity.CAHash() {
		t.Errorf("identity %s of %s", i.ID(), i.Cluster())
	}
	e, _, err := b.st.Machines.Get(t.Context(), string(idOf(2)), store.Read{})
	m := e.Value
	if err != nil || m.Key != i.KeyHash() || m.Token != c.Token.ID || m.Labels["zone"] != "a" || m.Labels["early"] != "yes" || !m.Witness || m.Name != "m2" {
		t.Errorf("%+v, %v", m, err)
	}
	n, _, _ := b.st.Names.Get(t.Context(), "m2", store.Read{})
	tok, _, _ := b.st.Joins.Get(t.Context(), c.Token.ID, store.Read{})
	if n.Value != idOf(2) || tok.Value.Uses != 0 || len(tok.Value.Used) != 1 {
		t.Errorf("name %s, token %+v", n.Value, tok.Value)
	}
	b.in(b.desk, j) // its answer was lost
	b.pass(2 * time.Hour)
	j.q.Clock = b.clock()
	b.in(b.desk, j) // also after the token expired
	if err := b.desk.Revoke(t.Context(), c.Token.ID); err != nil {
		t.Fatal(err)
	}
	b.in(b.desk, j) // or is no more
	again, _, _ := b.st.Machines.Get(t.Context(), string(idOf(2)), store.Read{})
	if again.Rev != e.Rev {
		t.Error("a repeated request changed something")
	}
	j.q.Name = "other" // a person changed --name before the machine was up
	b.in(b.desk, j)
	if _, ok, _ := b.st.Names.Get(t.Context(), "m2", store.Read{}); ok {
		t.Error("the old name is still taken")
	}
}

// Every reason to refuse a machine has its message.
func TestRefusals(t *testing.T) {
	b := newBed(t)
	ctx := t.Context()
	good := b.token(NewToken{Uses: 100})
	once := b.token(NewToken{})
	short := b.token(NewToken{TTL: time.Minute})
	revoked := b.token(NewToken{})
	if err := b.desk.Revoke(ctx, revoked.Token.ID); err != nil {
		t.Fatal(err)
	}
	b.in(b.desk, b.joiner(2, once.Text))
	b.in(b.desk, b.joiner(3, good.Text))
	three := b.joiner(3, good.Text) // another key
	gone := b.joiner(4, good.Text)
	b.in(b.desk, gone)
	if err := b.desk.Remove(ctx, "m4", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	five := b.joiner(5, good.Text)
	b.in(b.desk, five)
	b.alive(5)
	five.q.Token = b.token(NewToken{}).Text
	b.pass(3 * time.Minute)
	wrong := good.Text[:len(good.Text)-1] + "0"
	if wrong == good.Text {
		wrong = good.Text[:len(good.Text)-1] + "1"
	}
	for name, c := range map[string]struct {
		j    *joiner
		edit func(*JoinRequest)
		kind fault.Kind
		text string
	}{
		"no token":       {j: b.joiner(9, "hello"), kind: fault.Denied, text: "no join token"},
		"wrong token":    {j: b.joiner(9, wrong), kind: fault.Denied, text: "is wrong"},
		"revoked":        {j: b.joiner(9, revoked.Text), kind: fault.Denied, text: "revoked"},
		"expired":        {j: b.joiner(9, short.Text), kind: fault.Denied, text: "expired 2 min ago"},
		"used up":        {j: b.joiner(9, once.Text), kind: fault.Denied, text: "used up: 1 machine joined"},
		"clock behind":   {j: b.joiner(9, good.Text), edit: func(q *JoinRequest) { q.Clock = q.Clock.Add(-25 * time.Hour) }, kind: fault.Denied, text: "25 h behind"},
		"clock ahead":    {j: b.joiner(9, good.Text), edit: func(q *JoinRequest) { q.Clock = q.Clock.Add(6*time.Minute + 30*time.Second) }, kind: fault.Denied, text: "6 min ahead"},
		"name taken":     {j: b.joiner(9, good.Text), edit: func(q *JoinRequest) { q.Name = "m3" }, kind: fault.Exists, text: `named "m3" already`},
		"id taken":       {j: three, kind: fault.Exists, text: `is that of "m3" already, with another key`},
		"removed":        {j: gone, kind: fault.Denied, text: `removed from the cluster as "m4"`},
		"member already": {j: five, kind: fault.Exists, text: `a member of the cluster already, as "m5"`},
		"bad name":       {j: b.joiner(9, good.Text), edit: func(q *JoinRequest) { q.Name = "A_" }, kind: fault.Invalid, text: "machine name"},
		"bad address":    {j: b.joiner(9, good.Text), edit: func(q *JoinRequest) { q.Addr = "0.0.0.0" }, kind: fault.Invalid, text: "0.0.0.0"},
	} {
		c.j.q.Clock = b.clock()
		if c.edit != nil {
			c.edit(&c.j.q)
		}
		_, err := b.desk.Admit(ctx, c.j.q)
		t.Run(name, func(t *testing.T) { refused(t, err, c.kind, c.text) })
	}
	bad := b.joiner(9, good.Text).q
	bad.ID = idOf(10)
	if _, err := b.desk.Admit(ctx, bad); !fault.Is(err, fault.Invalid) {
		t.Errorf("the request of another: %v", err)
	}
	if _, ok, _ := b.st.Machines.Get(ctx, string(idOf(9)), store.Read{}); ok {
		t.Error("a refused machine is in")
	}
}

func TestFoundAndRegister(t *testing.T) {
	b := newBed(t)
	ctx := t.Context()
	before, _, _ := b.st.Machines.Get(ctx, string(idOf(1)), store.Read{})
	if err := b.desk.Found(ctx); err != nil {
		t.Error(err)
	}
	after, _, _ := b.st.Machines.Get(ctx, string(idOf(1)), store.Read{})
	if before.Rev != after.Rev || before.Value.Key != b.desk.o.Identity.KeyHash() {
		t.Errorf("%+v, %+v", before, after)
	}
	b.desk.o.Name, b.desk.o.Witness = "big", true
	if m, err := b.desk.Register(ctx); err != nil || m.Name != "big" || !m.Witness {
		t.Errorf("%+v, %v", m, err)
	}
	if n, _, _ := b.st.Names.Get(ctx, "big", store.Read{}); n.Value != idOf(1) {
		t.Errorf("name of %s", n.Value)
	}
	if _, ok, _ := b.st.Names.Get(ctx, "m1", store.Read{}); ok {
		t.Error("the old name is taken")
	}
	b.in(b.desk, b.joiner(2, b.token(NewToken{}).Text))
	b.desk.o.Name = "m2"
	_, err := b.desk.Register(ctx)
	refused(t, err, fault.Exists, "m2")
	other, err := trust.Found(trust.Options{Dir: t.TempDir()}, trust.Subject{ID: idOf(1), Name: "m1", IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	refused(t, b.newDesk(other, b.kv, 1).Found(ctx), fault.Conflict, "cluster")
	_, err = b.newDesk(other, b.kv, 1).Register(ctx)
	refused(t, err, fault.Denied, "another key")
}

// Many machines join at once by several voters, whose ways to the store fail now and then: all end as members, or with a clear refusal. Some
// share a name, some an id, and the token has fewer uses than there are machines.
func TestManyJoinAtOnce(t *testing.T) {
	const n, uses, shared = 200, 150, 20
	b := newBed(t)
	var desks []*Desk
	for i := range 5 {
		kv := b.mem.Client()
		t.Cleanup(func() { _ = kv.Close() })
		flaky(kv, rand.New(rand.NewPCG(1, uint64(i))))
		desks = append(desks, New(Options{Store: store.New(kv), Identity: b.desk.o.Identity, ID: idOf(1), Name: "m1", Now: b.clock}))
	}
	tok := b.token(NewToken{Uses: uses})
	var all []*joiner
	for i := range n {
		j := b.joiner(100+i, tok.Text)
		if i < shared {
			j.q.Name = "same"
		}
		if i >= shared && i < 2*shared {
			j.q.ID = idOf(99)
			j.q.Name = fmt.Sprintf("twin%d", i)
		}
		j.sign(t)
		all = append(all, j)
	}
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i, j := range all {
		wg.Go(func() {
			for try := 0; ; try++ {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				a, err := desks[(i+try)%len(desks)].Admit(ctx, j.q)
				cancel()
				if fault.Is(err, fault.Unavailable) && try < 200 {
					continue
				}
				if err == nil {
					_, err = trust.Install(j.o, a.Grant)
				}
				errs[i] = err
				return
			}
		})
	}
	wg.Wait()
	in := map[machine.ID]int{}
	for i, err := range errs {
		switch {
		case err == nil:
			in[all[i].q.ID]++
		case fault.Is(err, fault.Exists) && fault.Hint(err) != "": // a name or an id that another one got
		case fault.Is(err, fault.Denied) && strings.Contains(err.Error(), "used up"):
		default:
			t.Errorf("machine %d: %v", i, err)
		}
	}
	machines, _, err := b.st.Machines.List(t.Context(), "", store.Read{})
	if err != nil || len(machines) != uses+1 || len(in) != uses {
		t.Errorf("%d records, %d admitted, want %d; %v", len(machines), len(in), uses, err)
	}
	names := map[string]int{}
	for _, e := range machines {
		names[e.Value.Name]++
		holder, _, _ := b.st.Names.Get(t.Context(), e.Value.Name, store.Read{})
		if names[e.Value.Name] > 1 || holder.Value != e.Value.ID || e.Value.ID != idOf(1) && in[e.Value.ID] != 1 {
			t.Errorf("%s: name of %s, admitted %d times", e.Value.Name, holder.Value, in[e.Value.ID])
		}
	}
	left, _, _ := b.st.Joins.Get(t.Context(), tok.Token.ID, store.Read{})
	if left.Value.Uses != 0 || len(left.Value.Used) != uses {
		t.Errorf("the token has %d uses left, %d used", left.Value.Uses, len(left.Value.Used))
	}
}

// flaky makes one in 20 calls of kv fail before it is made, and one in 20 lose its answer.
func flaky(kv *mem.Faulty, r *rand.Rand) {
	var mu sync.Mutex
	hook := func(mem.Call) error {
		mu.Lock()
		defer mu.Unlock()
		if r.IntN(20) == 0 {
			return fault.New(fault.Unavailable, "told to fail")
		}
		return nil
	}
	kv.Before(hook)
	kv.After(hook)
}
