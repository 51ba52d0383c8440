package netbed

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// healed is how long the cluster may take until every unit runs where the store says and nowhere else. Source: the issue.
const healed = 15 * time.Second

// trial is one way to disturb the network of n machines.
type trial struct {
	name string
	n    int // machines, all of one cluster
	// cut cuts links; leader is the machine that leads.
	cut func(t *testing.T, b *bed, leader int)
	// whole: the links that are cut are cut both ways, so a machine either reads the store or does not, and none that cannot may stop anything.
	whole bool
	flap  time.Duration // cut and heal in turn this often; 0: stay cut
	brief bool          // also without -long
}

// others gives all machines but one.
func (b *bed) others(i int) []int {
	return slices.DeleteFunc(b.numbers(), func(j int) bool { return j == i })
}

// trials are the matrix of the issue, on 3 and on 5 machines.
func trials() (all []trial) {
	isolateLeader := func(t *testing.T, b *bed, leader int) { b.Isolate(t, leader) }
	isolateOther := func(t *testing.T, b *bed, leader int) { b.Isolate(t, b.others(leader)[0]) }
	for _, n := range []int{3, 5} {
		three := n == 3
		all = append(all,
			trial{name: "leader isolated", n: n, cut: isolateLeader, whole: true, brief: three},
			trial{name: "another isolated", n: n, cut: isolateOther, whole: true},
			trial{name: "all apart", n: n, whole: true, brief: three, cut: func(t *testing.T, b *bed, _ int) {
				for _, i := range b.numbers() {
					b.Isolate(t, i)
				}
			}},
			trial{name: "minority with the leader", n: n, whole: true, brief: !three, cut: func(t *testing.T, b *bed, leader int) {
				rest := b.others(leader)
				b.Split(t, append([]int{leader}, rest[:(n-1)/2-1]...), rest[(n-1)/2-1:])
			}},
			trial{name: "majority with the leader", n: n, whole: true, cut: func(t *testing.T, b *bed, leader int) {
				rest := b.others(leader)
				b.Split(t, rest[:(n-1)/2], append([]int{leader}, rest[(n-1)/2:]...))
			}},
			trial{name: "the leader reaches nobody and is reached", n: n, brief: three, cut: func(t *testing.T, b *bed, leader int) {
				for _, i := range b.others(leader) {
					b.CutOneWay(t, leader, i)
				}
			}},
			trial{name: "the leader reaches all and is not reached", n: n, cut: func(t *testing.T, b *bed, leader int) {
				for _, i := range b.others(leader) {
					b.CutOneWay(t, i, leader)
				}
			}},
			trial{name: "another reaches nobody and is reached", n: n, cut: func(t *testing.T, b *bed, leader int) {
				one := b.others(leader)[0]
				for _, i := range b.others(one) {
					b.CutOneWay(t, one, i)
				}
			}},
			trial{name: "another reaches all and is not reached", n: n, cut: func(t *testing.T, b *bed, leader int) {
				one := b.others(leader)[0]
				for _, i := range b.others(one) {
					b.CutOneWay(t, i, one)
				}
			}},
			trial{name: "one cable between two", n: n, cut: func(t *testing.T, b *bed, leader int) { b.Cut(t, leader, b.others(leader)[0]) }},
			trial{name: "the leader flaps", n: n, cut: isolateLeader, flap: 2 * time.Second},
			trial{name: "another flaps", n: n, cut: isolateOther, flap: 2 * time.Second, brief: three},
		)
	}
	return all
}

// TestPartitions cuts networks in many ways: no exclusive unit ever runs twice at the same time, no machine that is cut off stops anything
// else, the keys stay linearizable, no unit is ever placed twice, and soon after all is healed every unit runs where the store says.
func TestPartitions(t *testing.T) {
	for _, n := range []int{3, 5} {
		t.Run(fmt.Sprintf("of %d", n), func(t *testing.T) {
			b := newCluster(t, n, n)
			sole, plain := b.launchUnits(t, 1, 3, n)
			var watched []string
			for _, u := range sole {
				watched = append(watched, u+".service")
			}
			h := b.history(t, watched...)
			work := b.clerks(t, b.numbers())
			for _, tr := range trials() {
				if tr.n != n || !tr.brief && !*long {
					continue
				}
				if !t.Run(tr.name, func(t *testing.T) { b.try(t, tr, sole, plain) }) {
					break // the cluster is in no known state
				}
			}
			work.judge(t)
			if err := h.verdict(); err != nil {
				t.Error(err)
			}
		})
	}
}

// try makes one trial, and leaves the cluster whole.
func (b *bed) try(t *testing.T, tr trial, sole, plain []string) {
	b.ready(t, 1, b.numbers()...)
	leader := b.leader(t, 1)
	began := sinceBoot()
	tr.cut(t, b, leader)
	defer b.Heal(t)
	switch {
	case tr.flap > 0:
		b.flap(t, tr, leader)
	case *long:
		spend(t, 30*time.Second, func() error { return b.exclusiveNow(sole) })
	default:
		spend(t, 9*time.Second, func() error { return b.exclusiveNow(sole) }) // the lease and the time to act on its end
	}
	cutFor := span{began, sinceBoot()}
	b.Heal(t)
	took := b.whole(t)
	t.Logf("m%d led; every unit in its place %s after the end", leader, took.Round(10*time.Millisecond))
	b.exclusiveEver(t, sole)
	if tr.whole {
		if err := judgeUndisturbed(only(b.lives(t), plain...), cutFor, plainTick); err != nil {
			t.Error(err)
		}
	}
}

// flap cuts and heals in turn.
func (b *bed) flap(t *testing.T, tr trial, leader int) {
	t.Helper()
	d := time.Minute
	if !*long {
		d = 20 * time.Second
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
		spend(t, tr.flap, func() error { return nil })
		b.Heal(t)
		spend(t, tr.flap, func() error { return nil })
		tr.cut(t, b, leader)
	}
}

// whole waits until, in the eyes of every machine, every unit runs where the store says and nowhere else.
func (b *bed) whole(t *testing.T) time.Duration {
	t.Helper()
	return within(t, promised(healed), "every unit where the store says and nowhere else", func() error {
		for _, i := range b.numbers() {
			if err := b.agree(i); err != nil {
				return fmt.Errorf("%s: %w", b.at(i).name, err)
			}
		}
		return nil
	})
}

// exclusiveNow says which exclusive units run twice now: no proof, but it stops a test early.
func (b *bed) exclusiveNow(sole []string) error {
	var errs []error
	on := b.running()
	for _, u := range sole {
		if len(on[u]) > 1 {
			errs = append(errs, fmt.Errorf("%s runs on %v", u, on[u]))
		}
	}
	return errors.Join(errs...)
}
