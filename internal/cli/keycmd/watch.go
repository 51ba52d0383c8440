package keycmd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flota/internal/fault"
)

// event is a change as watch shows it.
type event struct {
	Action string `json:"action"` // create, change or delete (a key that expires is deleted)
	Item
	Previous *string `json:"previous,omitempty"`       // value before, if it was text
	PrevB64  string  `json:"previousBase64,omitempty"` // and if not

	raw []byte // the value
}

// watchFlags are what `flota key watch` may be told.
type watchFlags struct {
	prefix, initial bool
	revision        int64
	count           int
	exec            string
}

// newWatch is `flota key watch`.
func (k *keys) newWatch() *cobra.Command {
	var f watchFlags
	c := &cobra.Command{
		Use:   "watch KEY",
		Short: "Print each change of a key, or run a command at each",
		Long: `Print each change of a key, or with --prefix of all keys below it: "create|change|delete KEY: VALUE". It goes on with another machine when the one that
it hangs on dies, and neither loses nor repeats a change.

With --exec run the command with /bin/sh at each change, one after another. The change is in its environment: FLOTA_KEY, FLOTA_ACTION (create, change, delete),
FLOTA_REVISION and FLOTA_VALUE; the value also comes on its standard input, byte by byte. FLOTA_VALUE is left out for values above 64 KiB or with a byte 0.
Changes that come while the command runs wait; of those to one key only the last is kept, so that a slow command sees the newest value and
never an old one after it, but not each value in between. A command that fails is told of, and does not end the watch.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := k.dir(args[0]), error(nil)
			if !f.prefix {
				name, err = k.key(args[0])
			}
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("exec") && strings.TrimSpace(f.exec) == "" {
				return fault.New(fault.Invalid, "--exec needs a command")
			}
			return k.watch(cmd.Context(), k.scope(name, f.prefix), f)
		},
	}
	c.Flags().BoolVar(&f.prefix, "prefix", false, "all keys below KEY, too")
	c.Flags().BoolVar(&f.initial, "initial", false, "begin with the keys that are there, as if they had just been made")
	c.Flags().Int64Var(&f.revision, "revision", 0, "begin with the changes at this revision, as long as they are kept (at least 5min)")
	c.Flags().IntVar(&f.count, "count", 0, "end after so many changes, or runs of the command, whose exit code is then passed on")
	c.Flags().StringVar(&f.exec, "exec", "", "run this command at each change")
	return c
}

// errEnough ends a watch that has shown what it was asked for.
var errEnough = fault.New(fault.Failed, "enough was seen")

// watch shows changes until ctx ends, or until enough were seen.
func (k *keys) watch(ctx context.Context, s scope, f watchFlags) error {
	c, err := k.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	show := k.printer(f.count)
	if f.exec != "" {
		r := newRunner(k, f.exec, f.count)
		defer r.wait()
		go r.run(ctx, end)
		show = r.take
	}
	err = k.follow(ctx, c, s, f, show)
	if err == errEnough || context.Cause(ctx) == errEnough {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// printer shows changes on standard output, at most count of them if that is not 0.
func (k *keys) printer(count int) func(event) error {
	return func(e event) (err error) {
		if k.JSON() {
			err = k.printLine(e)
		} else if e.Action == deleted {
			_, err = fmt.Fprintf(k.Out, "%s %s\n", e.Action, printable([]byte(e.Key)))
		} else {
			_, err = fmt.Fprintf(k.Out, "%s %s: %s\n", e.Action, printable([]byte(e.Key)), printable(e.raw))
		}
		if count--; err == nil && count == 0 {
			err = errEnough
		}
		return err
	}
}

// rewatch bounds the pause before a watch that broke is begun again.
const rewatch = time.Second

// follow calls show with each change, in the order in which they were made, until it gives an error or ctx ends.
func (k *keys) follow(ctx context.Context, c *clientv3.Client, s scope, f watchFlags, show func(event) error) error {
	next := f.revision
	if next == 0 || f.initial {
		opts := []clientv3.OpOption{clientv3.WithKeysOnly()}
		if f.initial {
			opts = nil
		}
		all, rev, err := k.fetch(ctx, c, s, readFlags{}, opts...)
		if err != nil {
			return err
		}
		next = rev + 1
		for _, kv := range all {
			if !f.initial || k.marker(kv.Key) {
				continue
			}
			if err := show(event{Action: created, Item: itemOf(kv), raw: kv.Value}); err != nil {
				return err
			}
		}
	}
	w := stream{k: k, c: c, show: show, parts: s.parts(), next: []int64{next, next}}
	for told := false; ; {
		shown := w.shown
		err := w.run(ctx)
		if w.final || ctx.Err() != nil {
			return err
		}
		if err == errAnew {
			continue
		}
		if told = told && w.shown == shown; !told {
			k.note("the watch broke (%v); trying again", err)
			told = true
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rewatch):
		}
	}
}

// stream is a watch of a scope: of one key, of a range, or of both, side by side. Each knows where it has got to, so that it goes on
// there when it breaks.
type stream struct {
	k     *keys
	c     *clientv3.Client
	show  func(event) error
	parts []scope
	next  []int64 // by part: the first revision that was not shown
	shown int     // changes
	final bool    // the error is not one of the connection
}

// progressEvery is how often a watch asks how far it has got. 1 min: history is kept for 5, and a watch that sees no changes for longer
// than that could not be resumed without knowing that it has missed nothing.
const progressEvery = time.Minute

// run shows changes until the watch breaks.
func (w *stream) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	chans := make([]clientv3.WatchChan, 2) // the second is nil if there is only one part
	for i, p := range w.parts {
		p.each(func(key string, o ...clientv3.OpOption) {
			chans[i] = w.c.Watch(ctx, key, append(o, clientv3.WithRev(w.next[i]), clientv3.WithPrevKV())...)
		})
	}
	progress := time.NewTicker(progressEvery)
	defer progress.Stop()
	for {
		var r clientv3.WatchResponse
		var ok bool
		i := 0
		select {
		case r, ok = <-chans[0]:
		case r, ok = <-chans[1]:
			i = 1
		case <-progress.C:
			_ = w.c.RequestProgress(ctx) // a watch that is broken says so itself
			continue
		}
		if err := w.take(ctx, i, r, ok); err != nil {
			return err
		}
	}
}

// take shows what came of part i.
func (w *stream) take(ctx context.Context, i int, r clientv3.WatchResponse, ok bool) error {
	if r.CompactRevision > w.next[i] {
		return w.again(ctx, r.CompactRevision)
	}
	if err := r.Err(); err != nil {
		err = problem(ctx, err)
		w.final = fault.Is(err, fault.Denied) || fault.Is(err, fault.Invalid)
		return err
	}
	if !ok {
		return fault.New(fault.Unavailable, "the connection ended")
	}
	for _, ev := range r.Events {
		if err := w.tell(eventOf(ev)); err != nil {
			return err
		}
	}
	if n := len(r.Events); n > 0 {
		w.next[i] = r.Events[n-1].Kv.ModRevision + 1
	} else if r.IsProgressNotify() {
		w.next[i] = max(w.next[i], r.Header.Revision+1)
	}
	return nil
}

// tell shows one change.
func (w *stream) tell(e event) error {
	if w.k.marker([]byte(e.Key)) {
		return nil
	}
	err := w.show(e)
	w.final = err != nil
	w.shown++
	return err
}

// errAnew says that the watch must be begun anew, which is no failure.
var errAnew = fault.New(fault.Unavailable, "to be begun anew")

// again shows, of what is there, what has changed in the parts that have got no further than kept: the changes themselves are no longer
// there. It gives errAnew when that is done.
func (w *stream) again(ctx context.Context, kept int64) error {
	w.k.note("warning: the changes before revision %d are no longer kept; going on with what is there now, without what was deleted since", kept)
	for i, p := range w.parts {
		if w.next[i] >= kept {
			continue
		}
		all, rev, err := w.k.fetch(ctx, w.c, p, readFlags{})
		if err != nil {
			return err
		}
		for _, kv := range all {
			if kv.ModRevision < w.next[i] {
				continue
			}
			e := event{Action: changed, Item: itemOf(kv), raw: kv.Value}
			if kv.CreateRevision >= w.next[i] {
				e.Action = created
			}
			if err := w.tell(e); err != nil {
				return err
			}
		}
		w.next[i] = rev + 1
	}
	return errAnew
}

// eventOf shows a change.
func eventOf(ev *clientv3.Event) event {
	e := event{Action: changed, Item: itemOf(ev.Kv), raw: ev.Kv.Value}
	switch {
	case ev.Type == clientv3.EventTypeDelete:
		e.Action, e.Value, e.Base64 = deleted, nil, ""
	case ev.IsCreate():
		e.Action = created
	}
	if ev.PrevKv != nil {
		e.Previous, e.PrevB64 = valueOf(ev.PrevKv.Value)
	}
	return e
}
