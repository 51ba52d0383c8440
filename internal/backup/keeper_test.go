package backup

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
)

// keeping runs a Keeper on virtual time.
type keeping struct {
	t     *testing.T
	o     Options
	taken atomic.Int64
	now   atomic.Int64 // how many snapshots are being taken

	mu     sync.Mutex // guards the fields below
	plan   machine.Backup
	votes  bool
	broken error
}

// set changes what a Keeper that runs sees.
func (k *keeping) set(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
}

func newKeeping(t *testing.T) *keeping {
	k := &keeping{t: t, votes: true}
	src := smallSource(t)
	inner := src.Snapshot
	src.Scratch = ""
	src.Snapshot = func(ctx context.Context, w io.Writer) (int64, error) {
		if k.now.Add(1) > 1 {
			t.Error("two at once")
		}
		defer k.now.Add(-1)
		var broken error
		if k.set(func() { broken = k.broken }); broken != nil {
			return 0, broken
		}
		k.taken.Add(1)
		return inner(ctx, w)
	}
	k.o = Options{
		Dir: filepath.Join(t.TempDir(), "backups"), Source: src, Log: quiet(),
		Schedule: func() (plan machine.Backup) { k.set(func() { plan = k.plan }); return plan },
		Votes:    func() (votes bool) { k.set(func() { votes = k.votes }); return votes },
	}
	return k
}

// run runs a new Keeper for d.
func (k *keeping) run(d time.Duration) *Keeper {
	k.t.Helper()
	keeper, err := New(k.o)
	if err != nil {
		k.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	if err := keeper.Run(ctx); err != nil {
		k.t.Error(err)
	}
	return keeper
}

// files lists the directory, the oldest copy first.
func (k *keeping) files() (names []string) {
	k.t.Helper()
	all, err := os.ReadDir(k.o.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		k.t.Fatal(err)
	}
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

func (k *keeping) want(taken int64, files int) {
	k.t.Helper()
	if got := k.taken.Load(); got != taken {
		k.t.Errorf("%d copies made, want %d", got, taken)
	}
	if got := k.files(); len(got) != files {
		k.t.Errorf("%d files, want %d: %v", len(got), files, got)
	}
}

func inBubble(t *testing.T, f func(*testing.T, *keeping)) {
	t.Helper()
	smallSnapshot(t) // outside: it runs a store
	synctest.Test(t, func(t *testing.T) { f(t, newKeeping(t)) })
}

// TestKeeperRhythm makes one at once and then every 12 hours, and keeps 5; a restart changes nothing of that.
func TestKeeperRhythm(t *testing.T) {
	inBubble(t, func(t *testing.T, k *keeping) {
		k.run(time.Hour)
		k.want(1, 1)
		k.run(10 * time.Hour)
		k.want(1, 1)
		k.run(time.Hour + time.Minute)
		k.want(2, 2)
		k.run(6 * 24 * time.Hour)
		k.want(14, 5)
		names := k.files()
		newest := filepath.Join(k.o.Dir, names[len(names)-1])
		info, err := os.Stat(newest)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		if info, err := os.Stat(k.o.Dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		f, err := os.Open(newest)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if how, err := Inspect(context.Background(), f); err != nil || !how.Plain || how.Manifest.Cluster != cluster {
			t.Errorf("%+v, %v", how, err)
		}
	})
}

// TestKeeperFollowsItsSchedule: changed, switched off, sealed, and only on voters.
func TestKeeperFollowsItsSchedule(t *testing.T) {
	recipient, key := newIdentity(t)
	inBubble(t, func(t *testing.T, k *keeping) {
		k.votes = false
		k.run(48 * time.Hour)
		k.want(0, 0)
		k.votes = true
		k.plan = machine.Backup{Every: -1}
		k.run(48 * time.Hour)
		k.want(0, 0)
		k.plan = machine.Backup{Every: time.Hour, Keep: 2, Recipients: []string{recipient}}
		k.run(3*time.Hour + time.Minute)
		k.want(4, 2)
		b, err := os.ReadFile(filepath.Join(k.o.Dir, k.files()[1]))
		if err != nil {
			t.Fatal(err)
		}
		o, err := Keys{Identities: key}.open(context.Background(), strings.NewReader(string(b)))
		if err == nil {
			_, err = o.read(o.plain, io.Discard)
		}
		if err != nil {
			t.Error(err)
		}
	})
}

// TestKeeperFails: a failure is a warning, is tried again after 5 minutes, leaves nothing behind, and passes.
func TestKeeperFails(t *testing.T) {
	inBubble(t, func(t *testing.T, k *keeping) {
		k.broken = errors.New("no space left on device")
		keeper, err := New(k.o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { _ = keeper.Run(ctx); close(ended) }()
		time.Sleep(time.Minute)
		if w := keeper.Warnings(); len(w) != 1 || !strings.Contains(w[0], "no space left") {
			t.Error(w)
		}
		k.want(0, 0)
		k.set(func() { k.broken = nil })
		time.Sleep(3 * time.Minute)
		k.want(0, 0)
		time.Sleep(2 * time.Minute)
		k.want(1, 1)
		if w := keeper.Warnings(); len(w) > 0 {
			t.Error(w)
		}
		k.set(func() { k.plan.Recipients = []string{"age1nobody"} })
		time.Sleep(12 * time.Hour)
		if w := keeper.Warnings(); len(w) != 1 || !strings.Contains(w[0], "no age recipient") {
			t.Error(w)
		}
		k.set(func() { k.votes = false })
		time.Sleep(2 * time.Minute)
		if w := keeper.Warnings(); len(w) > 0 {
			t.Error("a warning of a machine that is no voter:", w)
		}
		cancel()
		<-ended
	})
}

// TestKeeperMindsItsOwn removes only what it made, and is not misled by copies of the future.
func TestKeeperMindsItsOwn(t *testing.T) {
	inBubble(t, func(t *testing.T, k *keeping) {
		foreign := []string{"notes.txt", "f" + cluster[1:] + "-20000101T000000Z.flota", cluster + "-copy.flota"}
		future := cluster + "-20990101T000000Z.flota"
		left := []string{cluster + "-20000101T000000Z.flota.123.part", ".snapshot-77"}
		if err := os.MkdirAll(k.o.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range slices.Concat(foreign, left, []string{future}) {
			if err := os.WriteFile(filepath.Join(k.o.Dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		k.plan = machine.Backup{Every: time.Hour, Keep: 2}
		k.run(time.Minute)
		k.want(1, 1+len(foreign)+1)
		k.run(time.Hour)
		k.want(2, 2+len(foreign))
		got := k.files()
		for _, name := range foreign {
			if !slices.Contains(got, name) {
				t.Errorf("%s is gone", name)
			}
		}
	})
}

func TestKeeperRefuses(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"no directory": func(o *Options) { o.Dir = "" },
		"no votes":     func(o *Options) { o.Votes = nil },
		"no source":    func(o *Options) { o.Source = Source{} },
	} {
		o := newKeeping(t).o
		change(&o)
		if _, err := New(o); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
