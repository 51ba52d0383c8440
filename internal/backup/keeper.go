package backup

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
)

// The defaults of machine.Backup. Source: its comment; k3s keeps as many, as often.
const (
	EveryDefault = 12 * time.Hour
	KeepDefault  = 5
)

// look is how often the schedule and the clock are looked at, in memory: a changed schedule, or a vote that came or went, is noticed within a
// minute.
const look = time.Minute

// retry is the pause after a copy that failed, or the schedule's own pause if that is shorter. 5 minutes: a disk that is full is not made
// free in seconds.
const retry = 5 * time.Minute

// writeMax bounds one copy: 1 hour, 2 GiB at 600 KB/s.
const writeMax = time.Hour

// Options say what a Keeper keeps. Dir, Source, Schedule, Votes and Log are needed.
type Options struct {
	Dir      string                // for the copies alone; made if absent, only for its owner
	Source   Source                // Scratch may be empty: Dir then
	Schedule func() machine.Backup // the cluster's, from memory; asked once a minute
	Votes    func() bool           // whether this machine is a voter now; others keep no copies
	Log      *slog.Logger
	Now      func() time.Time // nil: time.Now
}

// Keeper keeps copies of the store on a voter's own disk. One per directory.
type Keeper struct {
	Options

	run sync.Mutex // held by Run: never two at once

	mu      sync.Mutex // guards warning
	warning string
}

// New makes a Keeper; nothing happens before Run. fault.Invalid when something is missing.
func New(o Options) (*Keeper, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Source.Now = o.Now
	if o.Source.Scratch == "" {
		o.Source.Scratch = o.Dir
	}
	if o.Dir == "" || o.Schedule == nil || o.Votes == nil || o.Log == nil {
		return nil, fault.New(fault.Invalid, "keep backups: a directory, a schedule, votes and a log are needed")
	}
	if err := o.Source.check(); err != nil {
		return nil, err
	}
	return &Keeper{Options: o}, nil
}

// Warnings says, in a sentence, when the last copy failed; none when all is well.
func (k *Keeper) Warnings() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.warning == "" {
		return nil
	}
	return []string{k.warning}
}

func (k *Keeper) warn(text string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.warning = text
}

// Run writes a copy whenever one is due, until ctx ends; then it returns nil. A copy that fails is a warning and is tried again. When the newest copy
// was made is read from its name, so that a restart neither skips nor doubles one.
func (k *Keeper) Run(ctx context.Context) error {
	k.run.Lock()
	defer k.run.Unlock()
	k.sweep()
	var again time.Time // not before, after a failure
	for ctx.Err() == nil {
		wait := look
		if plan := filled(k.Schedule()); plan.Every > 0 && k.Votes() {
			wait, again = k.turn(ctx, plan, again)
		} else {
			k.warn("")
			again = time.Time{}
		}
		t := time.NewTimer(min(max(wait, time.Second), look))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
	return nil
}

// turn writes a copy if one is due, and says when to look again, and before when not to try.
func (k *Keeper) turn(ctx context.Context, plan machine.Backup, again time.Time) (time.Duration, time.Time) {
	now := k.Now()
	if left := again.Sub(now); left > 0 && left <= retry { // more: the clock was set back
		return left, again
	}
	due, err := k.due(plan, now)
	if err == nil && due <= 0 {
		due, err = plan.Every, k.keep(ctx, plan)
	}
	if err == nil {
		k.warn("")
		return due, time.Time{}
	}
	if ctx.Err() != nil {
		return 0, time.Time{}
	}
	pause := min(retry, plan.Every)
	k.warn(fmt.Sprintf("the backup of %s failed: %v; tried again every %s", now.UTC().Format(time.RFC3339), err, pause))
	k.Log.Warn("backup failed", "dir", k.Dir, "err", err, "again", pause)
	return pause, k.Now().Add(pause)
}

// filled gives the schedule with its defaults; a pause below a second would give two copies one name.
func filled(b machine.Backup) machine.Backup {
	if b.Every == 0 {
		b.Every = EveryDefault
	}
	if b.Every > 0 {
		b.Every = max(b.Every, time.Second)
	}
	if b.Keep <= 0 {
		b.Keep = KeepDefault
	}
	return b
}
