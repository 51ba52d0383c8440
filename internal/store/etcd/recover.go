package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"flota/internal/fault"
)

// revisionLeap is how far the revision jumps when a cluster is taken over: past all that the lost majority may have counted to without this copy. A
// billion is 1,500 writes per second for a week. Source: etcd's documentation of restoring with a bumped revision.
const revisionLeap = 1_000_000_000

// takeOverPatience bounds how long the lone member needs to elect itself and to go through its log.
const takeOverPatience = time.Minute

// takeOver makes the copy in Dir one of which this member is the only one. Each step may be repeated, so that it does not matter where a process
// dies that was doing it:
//
//  1. settle, in the log: all that this member has been sent counts as agreed on, because an acknowledged write may be among it; a learner votes.
//  2. etcd's own ForceNewCluster adds the removal of all others to the log. A run without peers goes through it.
//  3. leap, in the database: the revision jumps, and all before it counts as compacted, so that every reader that watched the lost cluster lists
//     again instead of waiting for revisions that come a second time with other content.
//
// Members of the lost cluster that return are told by this one that they are removed.
func (o Options) takeOver(ctx context.Context) error {
	const what = "take over the store in %s"
	if !hasData(o.Dir) {
		return fault.New(fault.NotFound, what+": there is no copy", o.Dir)
	}
	d := newDoom()
	lg := zapOver(o.Log, d)
	if err := d.attempt(func() error { return settle(lg, o.Dir) }); err != nil {
		return fault.Wrap(fault.KindOf(err), err, what, o.Dir)
	}
	if err := o.rehearse(ctx); err != nil {
		return fault.Wrap(fault.KindOf(err), err, what, o.Dir)
	}
	if err := d.attempt(func() error { return leap(lg, o.Dir) }); err != nil {
		return fault.Wrap(fault.KindOf(err), err, what, o.Dir)
	}
	return nil
}

// rehearse runs the member alone until it has gone through its log.
func (o Options) rehearse(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, takeOverPatience)
	defer cancel()
	d := newDoom()
	cfg, err := o.config(d)
	if err != nil {
		return err
	}
	cfg.ForceNewCluster = true
	cfg.ListenPeerUrls = nil
	e, err := launch(cfg, d)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "start the only member")
	}
	defer func() {
		e.Close()
		for range e.Err() { // closed by etcd
		}
	}()
	select {
	case <-e.Server.ReadyNotify():
		return nil
	case <-d.fell:
		return fault.Wrap(fault.Internal, d.why(), "start the only member")
	case <-e.Server.StopNotify():
		return fault.New(fault.Internal, "the only member stopped")
	case <-ctx.Done():
		return fault.Wrap(fault.Unavailable, ctx.Err(), "start the only member")
	}
}

// copied is what the log says of a member's copy.
type copied struct {
	self             uint64
	state            *raftpb.HardState
	last             uint64 // index of the newest entry
	term             uint64 // of the newest entry
	voters, learners []uint64
}

// settle extends the log in dir so that everything in it is agreed on and its owner votes. fault.Conflict when it was removed.
func settle(lg *zap.Logger, dir string) error {
	w, c, err := openLog(lg, filepath.Join(dir, "member", "wal"))
	if err != nil {
		return fault.Wrap(fault.Internal, err, "read the log")
	}
	defer w.Close()
	var ents []*raftpb.Entry
	term := max(c.term, c.state.GetTerm())
	switch {
	case slices.Contains(c.voters, c.self):
	case slices.Contains(c.learners, c.self):
		e, err := promotion(c.self, c.last+1, term)
		if err != nil {
			return err
		}
		ents = append(ents, e)
		c.last++
	default:
		return fault.WithHint(fault.New(fault.Conflict, "the cluster had removed this machine's member %x", c.self), "recover on another machine, or restore a backup")
	}
	if len(ents) == 0 && c.last <= c.state.GetCommit() {
		return nil
	}
	state := &raftpb.HardState{Term: proto.Uint64(term), Vote: proto.Uint64(c.state.GetVote()), Commit: proto.Uint64(max(c.last, c.state.GetCommit()))}
	if term != c.state.GetTerm() {
		state.Vote = proto.Uint64(0)
	}
	return fault.Wrap(fault.Internal, w.Save(state, ents), "extend the log")
}

// promotion is the entry that makes a learner a voter.
func promotion(id, index, term uint64) (*raftpb.Entry, error) {
	why, err := json.Marshal(membership.ConfigChangeContext{Member: membership.Member{ID: types.ID(id)}, IsPromote: true})
	if err != nil {
		return nil, err
	}
	data, err := proto.Marshal(&raftpb.ConfChange{Type: raftpb.ConfChangeAddNode.Enum(), NodeId: proto.Uint64(id), Context: why})
	if err != nil {
		return nil, err
	}
	return &raftpb.Entry{Type: raftpb.EntryConfChange.Enum(), Data: data, Term: proto.Uint64(term), Index: proto.Uint64(index)}, nil
}

// openLog opens the log for appending, and mends its torn end after a power cut.
func openLog(lg *zap.Logger, dir string) (*wal.WAL, *copied, error) {
	snaps, err := wal.ValidSnapshotEntries(lg, dir)
	if err != nil {
		return nil, nil, err
	}
	from := &walpb.Snapshot{}
	if len(snaps) > 0 {
		from = snaps[len(snaps)-1]
	}
	at := &walpb.Snapshot{Index: proto.Uint64(from.GetIndex()), Term: proto.Uint64(from.GetTerm())}
	for mended := false; ; mended = true {
		w, err := wal.Open(lg, dir, at)
		if err != nil {
			return nil, nil, err
		}
		metadata, state, ents, err := w.ReadAll()
		if err == nil {
			c, err := copiedFrom(from, metadata, state, ents)
			if err != nil {
				_ = w.Close()
			}
			return w, c, err
		}
		_ = w.Close()
		if mended || !errors.Is(err, io.ErrUnexpectedEOF) || !wal.Repair(lg, dir) {
			return nil, nil, err
		}
	}
}

// copiedFrom goes through the log.
func copiedFrom(from *walpb.Snapshot, metadata []byte, state *raftpb.HardState, ents []*raftpb.Entry) (*copied, error) {
	var who etcdserverpb.Metadata
	if err := proto.Unmarshal(metadata, &who); err != nil {
		return nil, err
	}
	c := &copied{self: who.GetNodeID(), state: state, last: from.GetIndex(), term: from.GetTerm()}
	c.voters = slices.Clone(from.GetConfState().GetVoters())
	c.learners = slices.Clone(from.GetConfState().GetLearners())
	for _, e := range ents {
		c.last, c.term = e.GetIndex(), e.GetTerm()
		if e.GetType() != raftpb.EntryConfChange {
			continue
		}
		var cc raftpb.ConfChange
		if err := proto.Unmarshal(e.GetData(), &cc); err != nil {
			return nil, err
		}
		id := cc.GetNodeId()
		if cc.GetType() == raftpb.ConfChangeUpdateNode {
			continue
		}
		is := func(x uint64) bool { return x == id }
		c.voters, c.learners = slices.DeleteFunc(c.voters, is), slices.DeleteFunc(c.learners, is)
		switch cc.GetType() {
		case raftpb.ConfChangeAddNode:
			c.voters = append(c.voters, id)
		case raftpb.ConfChangeAddLearnerNode:
			c.learners = append(c.learners, id)
		}
	}
	return c, nil
}

// leap lets the database in dir, which nobody uses, go on revisionLeap revisions later, with nothing before that kept but the present values.
func leap(lg *zap.Logger, dir string) error {
	be := backend.NewDefaultBackend(lg, filepath.Join(dir, "member", "snap", "db"))
	defer be.Close()
	tx := be.BatchTx()
	tx.LockOutsideApply()
	defer tx.Unlock()
	latest, _ := mvcc.UnsafeReadScheduledCompact(tx)
	latest = max(latest, 1) // of a store without a key
	if done, _ := mvcc.UnsafeReadFinishedCompact(tx); done > latest {
		latest = done
	}
	err := tx.UnsafeForEach(schema.Key, func(k, _ []byte) error {
		latest = max(latest, mvcc.BytesToRev(k).Main)
		return nil
	})
	if err != nil {
		return fault.Wrap(fault.Internal, err, "read the database")
	}
	// A compaction that was ordered is carried out at the next start, and no revision may be lower than that.
	mvcc.UnsafeSetScheduledCompact(tx, latest+revisionLeap)
	return nil
}
