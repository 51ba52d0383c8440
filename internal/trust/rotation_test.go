package trust

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"flota/internal/fault"
)

func TestNextStep(t *testing.T) {
	const o, n = "sha256:old", "sha256:new"
	seat := func(name string, voter bool, issuer string, holds, trusts []string) Seat {
		return Seat{ID: idOf(name), Name: name, Live: true, Voter: voter, Standing: Standing{Trusts: trusts, Issuer: issuer, Holds: holds}}
	}
	away := func(s Seat) Seat { s.Live = false; return s }
	on, no := []string{o, n}, []string{n, o}
	for _, c := range []struct {
		name   string
		now    Rotation
		trust  []string
		seats  []Seat
		want   Step   // without its reason
		reason string // part of it
	}{
		{"no change", Steady, []string{o}, nil, Step{Steady, []string{o}, false, true, ""}, "not being changed"},
		{"spread to nobody yet", Spread, on, []Seat{seat("m1", true, o, on, on), seat("m2", false, o, nil, []string{o})},
			Step{Spread, on, false, true, ""}, "m2 has not taken over"},
		{"a voter without the key", Spread, on, []Seat{seat("m1", true, o, on, on), seat("m2", true, o, []string{o}, on)},
			Step{Spread, on, false, true, ""}, "m2 does not hold"},
		{"a voter is away", Spread, on, []Seat{seat("m1", true, o, on, on), away(seat("m2", true, o, on, on))},
			Step{Spread, on, false, true, ""}, "m2 is a voter and away"},
		{"all trust it", Spread, on, []Seat{seat("m1", true, o, on, on), seat("m2", false, o, nil, on), away(seat("m3", false, o, nil, []string{o}))},
			Step{Reissue, no, false, false, ""}, "every machine trusts"},
		{"an old leaf", Reissue, no, []Seat{seat("m1", true, n, on, no), seat("m2", false, o, nil, no)},
			Step{Reissue, no, false, true, ""}, "m2 has a certificate of the old"},
		{"all reissued", Reissue, no, []Seat{seat("m1", true, n, on, no), seat("m2", false, n, nil, no)},
			Step{Drop, []string{n}, false, false, ""}, "every machine has"},
		{"not all dropped", Drop, []string{n}, []Seat{seat("m1", true, n, []string{n}, []string{n}), seat("m2", false, n, nil, no)},
			Step{Drop, []string{n}, false, true, ""}, "m2 has not taken over"},
		{"all dropped", Drop, []string{n}, []Seat{seat("m1", true, n, []string{n}, []string{n}), seat("m2", false, n, nil, []string{n})},
			Step{Steady, []string{n}, false, false, ""}, "no machine trusts the old"},
		{"the key is lost before use", Spread, on, []Seat{seat("m1", true, o, []string{o}, on)},
			Step{Spread, []string{o}, true, false, ""}, "another one is made"},
		{"the key is lost in use", Reissue, no, []Seat{seat("m1", true, n, []string{o}, no)},
			Step{Spread, on, true, false, ""}, "another one is made"},
		{"all keys are lost", Spread, on, []Seat{seat("m1", true, o, nil, on)},
			Step{Spread, on, false, true, ""}, "holds the key"},
		{"no voter is there", Spread, on, []Seat{away(seat("m1", true, o, on, on))},
			Step{Spread, on, false, true, ""}, "away"},
		{"many are late", Spread, on, []Seat{seat("m1", true, o, on, on), seat("m5", false, o, nil, nil), seat("m4", false, o, nil, nil), seat("m3", false, o, nil, nil), seat("m2", false, o, nil, nil), seat("m6", false, o, nil, nil)},
			Step{Spread, on, false, true, ""}, "and 2 more"},
	} {
		got := NextStep(c.now, c.trust, c.seats)
		if !strings.Contains(got.Reason, c.reason) {
			t.Errorf("%s: reason %q", c.name, got.Reason)
		}
		got.Reason = ""
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	if _, err := Begin(Reissue, on); !fault.Is(err, fault.Conflict) {
		t.Errorf("begun twice: %v", err)
	}
}

// stage is a cluster that changes its authority: what is stored, and its machines.
type stage struct {
	t      *testing.T
	now    Rotation
	bundle []byte
	all    []*Identity
	voters int // the first ones
	awake  int // the first ones; the others are away
	// engines dial with the authorities that they began with, as etcd's members do.
	engines []*x509.CertPool
	steps   []string
}

// stand gives the seats.
func (s *stage) seats() (out []Seat) {
	for n, i := range s.all {
		out = append(out, Seat{ID: i.ID(), Name: i.Name(), Live: n < s.awake, Voter: n < s.voters, Standing: i.Standing()})
	}
	return out
}

// lead does what the leader does: the next step, if there is one.
func (s *stage) lead(leader *Identity, begin bool) {
	trust, err := BundleHashes(s.bundle)
	must(s.t, err)
	step := NextStep(s.now, trust, s.seats())
	if begin {
		step, err = Begin(s.now, trust)
		must(s.t, err)
	}
	if step.Wait {
		return
	}
	var more []byte
	if step.Make {
		a, err := leader.Successor()
		must(s.t, err)
		more = a.Certificate()
	}
	s.bundle, err = Arrange(s.bundle, step.Trust, more)
	must(s.t, err)
	s.now = step.Rotation
	s.steps = append(s.steps, string(s.now))
}

// must ends the test.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// act lets machine n do something that the step asks for, or that it does anyway; it says whether the machine's trust changed.
func (s *stage) act(r *rand.Rand, n int) (changed bool) {
	i := s.all[n]
	was := i.now.Load()
	defer func() { changed = i.now.Load() != was }()
	by := s.all[r.IntN(s.voters)]
	switch r.IntN(4) {
	case 0:
		must(s.t, i.SetBundle(s.bundle))
	case 1:
		if keys, err := by.Keys(); err == nil && n < s.voters {
			must(s.t, i.KeepAuthority(keys))
		}
	case 2:
		if i.unwanted() || r.IntN(20) == 0 {
			must(s.t, i.Renew(s.t.Context(), func(_ context.Context, csr []byte) (Grant, error) { return tryGrant(by, csr) }))
		}
	case 3: // it dies and comes back
		j, err := Open(i.o)
		must(s.t, err)
		s.all[n] = j
	}
	return false
}

// believe checks that every machine that is awake believes every other, and so does every engine.
func (s *stage) believe() {
	s.t.Helper()
	for _, i := range s.all[:s.awake] {
		for _, j := range s.all[:s.awake] {
			if _, err := i.now.Load().verify(j.now.Load().certs(), time.Now(), false); err != nil {
				s.t.Fatalf("after %v: %s does not believe %s: %v", s.steps, i.Name(), j.Name(), err)
			}
		}
	}
	for n, pool := range s.engines {
		for _, j := range s.all[:s.awake] {
			certs, links := j.now.Load().certs(), x509.NewCertPool()
			for _, c := range certs[1:] {
				links.AddCert(c)
			}
			if _, err := certs[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: links, DNSName: "127.0.0.1"}); err != nil {
				s.t.Fatalf("after %v: the engine begun %d rotations ago does not believe %s: %v", s.steps, len(s.engines)-n, j.Name(), err)
			}
		}
	}
}

// TestRotation changes the authority three times over, everybody doing his part at random moments and dying in between; one machine sleeps
// through all of it. At each moment all that are awake believe each other.
func TestRotation(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 7))
			m1 := found(t, Options{})
			s := &stage{t: t, bundle: m1.Bundle(), all: []*Identity{m1}, voters: 2, awake: 3}
			for _, name := range []string{"m2", "m3", "sleeper"} {
				s.all = append(s.all, join(t, m1, name, Options{}))
			}
			keys, err := m1.Keys()
			must(t, err)
			must(t, s.all[1].KeepAuthority(keys))
			first := m1.CAHash()
			for range 3 {
				s.engines = append(s.engines, s.all[0].now.Load().roots)
				s.lead(s.all[0], true)
				for n := 0; s.now != Steady; n++ {
					if n > 2000 {
						t.Fatalf("stuck in %q: %s", s.now, NextStep(s.now, nil, s.seats()).Reason)
					}
					changed := s.act(r, r.IntN(s.awake))
					s.lead(s.all[r.IntN(s.voters)], false)
					if changed {
						s.believe()
					}
				}
			}
			for _, i := range s.all[:s.awake] {
				if st := i.Standing(); len(st.Trusts) != 1 || st.Trusts[0] == first || st.Issuer != st.Trusts[0] || (i.Name() != "m3") != (len(st.Holds) == 1) {
					t.Errorf("%s ends with %+v", i.Name(), st)
				}
			}
			if got := strings.TrimSpace(strings.Join(slices.Compact(s.steps), " ")); got != strings.TrimSpace(strings.Repeat("spread reissue drop  ", 3)) {
				t.Errorf("steps %q", got)
			}
			s.wake(s.all[3])
		})
	}
}

// wake: the machine that slept through it all, still with the first authority and a leaf of it, gets in by renewing, and no further before.
func (s *stage) wake(i *Identity) {
	t := s.t
	m1 := s.all[0]
	m := members(t, s.all...)
	l, addr := open(t, true, ListenOptions{Identity: m1, Members: m})
	echo(t, l, Machines, "machines")
	echo(t, l, Renew, "renew")
	if got, err := ask(addr, i.Client(m, "", HTTP1)); err == nil {
		t.Errorf("with a leaf of a dropped authority: %q", got)
	}
	if got, err := ask(addr, i.Client(m, "", RenewProtocol)); got != "renew:hello" {
		t.Errorf("it may not renew: %q, %v", got, err)
	}
	stranger := found(t, Options{}) // says to be the sleeper, with a key of its own
	self, err := stranger.Authority()
	must(t, err)
	sub := i.now.Load().subject
	csr, err := sub.request(stranger.key)
	must(t, err)
	text, err := self.Issue(csr, sub, 0, time.Now())
	must(t, err)
	certs, err := readCerts(text, "it")
	must(t, err)
	cfg := i.Client(m, "", RenewProtocol)
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: [][]byte{certs[0].Raw, certs[1].Raw}, PrivateKey: stranger.key}, nil
	}
	if got, err := ask(addr, cfg); err == nil {
		t.Errorf("a stranger with its name: %q", got)
	}
	must(t, i.Renew(t.Context(), func(_ context.Context, csr []byte) (Grant, error) { return tryGrant(m1, csr) }))
	if got, err := ask(addr, i.Client(m, "", HTTP1)); got != "machines:hello" || i.unwanted() {
		t.Errorf("renewed: %q, %v", got, err)
	}
}

// TestJoinDuringARotation: a token names the authority of its time; it opens for as long as that one is trusted.
func TestJoinDuringARotation(t *testing.T) {
	m1 := found(t, Options{})
	old := m1.CAHash()
	next, err := m1.Successor()
	must(t, err)
	l, addr := open(t, true, ListenOptions{Identity: m1, Members: members(t, m1)})
	echo(t, l, Join, "join")
	host, _, _ := net.SplitHostPort(addr)
	joins := func(hash string) bool {
		cfg, err := JoinConfig(hash, host, Options{})
		must(t, err)
		got, _ := ask(addr, cfg)
		return got == "join:hello"
	}
	for n, c := range []struct {
		order    []string
		renew    bool
		old, new bool
	}{{[]string{old, next.Hash()}, false, true, false}, {[]string{next.Hash(), old}, true, true, true}, {[]string{next.Hash()}, false, false, true}} {
		both := append(m1.Bundle(), next.Certificate()...)
		if n > 0 {
			both = m1.Bundle()
		}
		text, err := Arrange(both, c.order, nil)
		must(t, err)
		must(t, m1.SetBundle(text))
		if c.renew {
			must(t, m1.Renew(t.Context(), m1.Self))
		}
		if joins(old) != c.old || joins(next.Hash()) != c.new {
			t.Errorf("step %d: old hash %v, new hash %v", n, joins(old), joins(next.Hash()))
		}
	}
}

func TestSuccessorIsMadeOnce(t *testing.T) {
	m1 := found(t, Options{})
	a, err := m1.Successor()
	must(t, err)
	m1, err = Open(m1.o)
	must(t, err)
	b, err := m1.Successor()
	must(t, err)
	if a.Hash() != b.Hash() || a.Hash() == m1.CAHash() {
		t.Error("another one was made")
	}
	if _, err := join(t, m1, "m2", Options{}).Successor(); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}
