package show

import (
	"fmt"
	"io"
	"time"

	"flota/internal/cli/track"
	"flota/internal/unit"
)

// crowd is from how many units on only outcomes are shown, and on a terminal a counter.
const crowd = 20

// redraw is how often the counter is written at most.
const redraw = 100 * time.Millisecond

// Progress shows the steps of units: one line each for a few units; for many the outcomes, and on a terminal a counter and what failed.
// Make one with NewProgress. Not safe for concurrent use.
type Progress struct {
	Failed []track.Step // of all units that did not get there

	out    io.Writer
	total  int
	live   bool // a counter is kept on the last line
	counts map[track.Kind]int
	at     map[unit.Name]track.Kind
	drawn  time.Time
}

// NewProgress shows the steps of so many units on out.
func NewProgress(out io.Writer, total int, terminal bool) *Progress {
	return &Progress{out: out, total: total, live: terminal && total > crowd, counts: map[track.Kind]int{}, at: map[unit.Name]track.Kind{}}
}

// Step shows one step. The failure of a single unit is left to the error that follows.
func (p *Progress) Step(s track.Step) {
	if s.Kind == track.Failed {
		p.Failed = append(p.Failed, s)
	}
	if was, ok := p.at[s.Unit]; ok {
		p.counts[was]--
	}
	p.at[s.Unit] = s.Kind
	p.counts[s.Kind]++
	line := fmt.Sprintf("%s: %s\n", s.Unit, s.Text)
	switch {
	case s.Kind == track.Failed && p.total == 1:
	case p.total <= crowd, s.Kind == track.Failed && len(p.Failed) <= crowd:
		p.clear()
		fmt.Fprint(p.out, line)
	case !p.live && (s.Kind == track.Done || s.Kind == track.Failed):
		fmt.Fprint(p.out, line)
	}
	if now := time.Now(); p.live && now.Sub(p.drawn) > redraw {
		p.drawn = now
		p.draw()
	}
}

// draw rewrites the last line of a terminal.
func (p *Progress) draw() {
	fmt.Fprintf(p.out, "\r\x1b[K%d placed, %d on their way, %d waiting, %d done, %d failed of %d", p.counts[track.Placed],
		p.counts[track.Working]+p.counts[track.Note]+p.counts[track.Reached], p.counts[track.Waiting], p.counts[track.Done], p.counts[track.Failed], p.total)
}

// clear takes the counter away.
func (p *Progress) clear() {
	if p.live {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

// End leaves the last count on a terminal.
func (p *Progress) End() {
	if p.live {
		p.draw()
		fmt.Fprintln(p.out)
	}
}
