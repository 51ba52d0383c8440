package keys

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// When the store takes more than half of its quota, an application most likely writes large values over and over: the history that is kept
// for watches that resume (5 min) is what fills it. Then less of it is kept, so that nobody has to be refused.
const (
	tight     = 0.50        // of the store's quota in use: from here on a minute of history is kept
	tightKeep = time.Minute //
	tighter   = 0.60        // and from here on 10 s, time enough for a watch to be taken up again elsewhere
	leastKeep = 10 * time.Second
)

// history knows which revision the store had at what time, of the last minute or so.
type history struct {
	marks []moment
	done  int64 // the revision compacted to last
}

// moment is one of its points.
type moment struct {
	at  time.Time
	rev int64
}

// before gives the newest revision that is at least keep old; 0 if none is known. What is older is forgotten.
func (h *history) before(now time.Time, keep time.Duration) (rev int64) {
	for len(h.marks) > 0 && now.Sub(h.marks[0].at) >= keep {
		rev = h.marks[0].rev
		if len(h.marks) > 1 && now.Sub(h.marks[1].at) >= keep {
			h.marks = h.marks[1:]
			continue
		}
		break
	}
	return rev
}

// relieve notes the revision, and gives up old history when the store is getting full. Called by one voter, the one that leads, every few
// seconds; errors show as a store that stays full.
func (u *usage) relieve(ctx context.Context, c *clientv3.Client, h *history, now time.Time) {
	s := u.node.Server()
	h.marks = append(h.marks, moment{now, s.KV().Rev()})
	used := float64(s.Backend().SizeInUse()) / float64(u.node.QuotaBytes())
	keep := tightKeep
	if used > tighter {
		keep = leastKeep
	}
	rev := h.before(now, keep)
	if used < tight || rev <= h.done {
		return
	}
	if _, err := c.Compact(ctx, rev); err == nil {
		u.log.Info("the store is getting full; its history is kept for a shorter time", "kept", keep, "revision", rev)
	}
	h.done = rev
}
