package leader

import (
	"context"
	"sync"

	"flota/internal/fault"
	"flota/internal/scheduler"
	"flota/internal/store"
	"flota/internal/view"
)

// inFlight is how many transactions are on their way at once. 32: enough to fill etcd's batches, few enough that its
// queue stays short for the renewals of leases.
const inFlight = 32

// move is a scheduler's move with its transaction.
type move struct {
	scheduler.Move
	txn  store.Txn
	name string // of the machine, for the log
}

// touch notes the keys that the move changes; false if one of them is changed by an earlier move of the plan already.
func (m move) touch(touched map[string]bool) bool {
	for _, op := range m.txn.Then {
		if touched[op.Key] {
			return false
		}
	}
	for _, op := range m.txn.Then {
		touched[op.Key] = true
	}
	return true
}

// move makes the transaction of a move: it holds only if this machine still leads and the touched places are as the view
// shows them. ok is false if the move means nothing (any more).
func (l *leader) move(c *view.Cluster, m scheduler.Move, guard store.Cond) (out move, ok bool) {
	s := l.opts.Store
	out = move{Move: m, txn: store.Txn{If: []store.Cond{guard}}}
	txn := &out.txn
	if m.From != "" && m.From != m.To {
		out.name = c.Name(m.From)
		place, there := c.Places[m.From][m.Unit]
		if !there {
			return out, false
		}
		key := store.PlaceKey(m.From, m.Unit)
		txn.If = append(txn.If, s.Places.IfRev(key, place.Rev))
		if m.Kind == scheduler.KindLeave {
			left := place.Value
			left.Leaving, left.Reason = true, m.Reason
			txn.Then = append(txn.Then, s.Places.PutOp(key, left, 0))
		} else {
			txn.Then = append(txn.Then, s.Places.DeleteOp(key))
		}
		if m.IfGone {
			txn.If = append(txn.If, s.Alive.IfAbsent(string(m.From)))
		}
		if m.Put != nil && l.units.exclusive(m.Unit) {
			// The agent there claims an exclusive unit in its state before it starts it (agent/claim.go).
			txn.If = append(txn.If, s.States.IfRev(key, c.States[m.From][m.Unit].Rev))
		}
	}
	if m.Put != nil {
		out.name = c.Name(m.To)
		key := store.PlaceKey(m.To, m.Unit)
		txn.If = append(txn.If, s.Places.IfRev(key, c.Places[m.To][m.Unit].Rev))
		txn.Then = append(txn.Then, s.Places.PutOp(key, *m.Put, 0))
	}
	return out, len(txn.Then) > 0
}

// carryOut commits the moves. rev is the highest revision reached; refused says that a move's conditions did not hold,
// or that the store will not have it. errUnknown means that nobody knows what some of the writes did.
func (l *leader) carryOut(ctx context.Context, moves []move) (rev int64, refused bool, err error) {
	var (
		mu   sync.Mutex // guards the results
		wait sync.WaitGroup
		slot = make(chan struct{}, inFlight)
	)
	for _, m := range moves {
		slot <- struct{}{}
		mu.Lock()
		stop := err != nil || ctx.Err() != nil
		mu.Unlock()
		if stop {
			refused = true
			break
		}
		wait.Go(func() {
			at, done, failure := l.opts.Store.KV.Commit(ctx, m.txn)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case failure == nil && done:
				rev = max(rev, at)
				l.status.Moves++
				l.opts.Log.Info(words[m.Kind], "unit", m.Unit, "machine", m.name, "reason", m.Reason)
			case failure == nil:
				refused = true
				l.opts.Log.Debug("a move was refused: the cluster changed meanwhile", "unit", m.Unit, "machine", m.name, "reason", m.Reason)
			case fault.Is(failure, fault.Invalid):
				refused = true
				l.opts.Log.Error("the store will not have a move; trying again later", "unit", m.Unit, "machine", m.name, "err", failure)
			default:
				err = fault.Wrap(fault.Unavailable, errUnknown, "move %s: %v", m.Unit, failure)
			}
			<-slot
		})
	}
	wait.Wait()
	return rev, refused, err
}

// words are what the log says of each kind of move.
var words = map[scheduler.Kind]string{
	scheduler.KindPlace:  "unit placed",
	scheduler.KindMove:   "unit moved",
	scheduler.KindRemove: "unit taken off",
	scheduler.KindUpdate: "unit's place updated",
	scheduler.KindLeave:  "unit starts elsewhere before it leaves",
	scheduler.KindFinish: "unit has left",
}
