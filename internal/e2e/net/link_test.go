package netbed

import (
	"fmt"
	"testing"
)

// nobody is a link-layer address that no machine has. What is sent to it is lost without a word, as on a broken wire; a route that refuses
// would tell the sender at once.
const nobody = "02:00:00:00:00:01"

// block drops what machine from sends to machine to. Nothing else changes: to still reaches from.
func (b *bed) block(from, to int) error {
	return b.space(from).ip(fmt.Sprintf("neigh replace %s lladdr %s dev %sm%d nud permanent", b.at(to).addr, nobody, b.ID, from))
}

// mend takes a block away.
func (b *bed) mend(from, to int) error {
	return b.space(from).ip(fmt.Sprintf("neigh replace %s lladdr %s dev %sm%d nud stale", b.at(to).addr, b.at(to).mac, b.ID, from))
}

// CutOneWay drops all that one machine sends to another. Machines that have no power keep the cut for when they are started.
func (b *bed) CutOneWay(t *testing.T, from, to int) {
	t.Helper()
	if from == to || b.cut[[2]int{from, to}] {
		return
	}
	b.cut[[2]int{from, to}] = true
	if b.space(from) != nil {
		if err := b.block(from, to); err != nil {
			t.Fatal(err)
		}
	}
}

// Cut drops all that two machines send to each other.
func (b *bed) Cut(t *testing.T, one, other int) {
	t.Helper()
	b.CutOneWay(t, one, other)
	b.CutOneWay(t, other, one)
}

// Split cuts all links between machines of different groups. A machine that no group names keeps its links.
func (b *bed) Split(t *testing.T, groups ...[]int) {
	t.Helper()
	for x, g := range groups {
		for _, h := range groups[x+1:] {
			for _, i := range g {
				for _, j := range h {
					b.Cut(t, i, j)
				}
			}
		}
	}
}

// Isolate cuts a machine off from all others.
func (b *bed) Isolate(t *testing.T, i int) {
	t.Helper()
	for _, j := range b.numbers() {
		b.Cut(t, i, j)
	}
}

// Heal mends all links.
func (b *bed) Heal(t *testing.T) {
	t.Helper()
	for pair := range b.cut {
		delete(b.cut, pair)
		if b.space(pair[0]) == nil {
			continue
		}
		if err := b.mend(pair[0], pair[1]); err != nil {
			t.Fatal(err)
		}
	}
}
