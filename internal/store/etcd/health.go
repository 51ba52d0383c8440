package etcd

import (
	"context"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flota/internal/store"
)

// Health implements store.KV. Whether there is a quorum shows by asking it something; members and leader are what one voter knows, and
// are given without a quorum too. It takes no longer than 1.5 s.
func (k *kv) Health(ctx context.Context) store.Health {
	var h store.Health
	ctx, done, err := k.begin(ctx, 0)
	if err != nil {
		return h
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, readWait)
	defer cancel()
	asked := make(chan error, 1)
	go func() {
		_, err := k.read(ctx, "\x00", store.Read{}, clientv3.WithCountOnly())
		asked <- err
	}()
	k.members(ctx, &h)
	if err := <-asked; err != nil {
		h.Leader = "" // what a voter without a quorum believes
	} else {
		h.Quorum = true
	}
	return h
}

// members asks one voter that can be reached.
func (k *kv) members(ctx context.Context, h *store.Health) {
	type answer struct {
		st   *pb.StatusResponse
		list *clientv3.MemberListResponse
	}
	got := make(chan answer, 1)
	err := k.do(func() error {
		st, err := k.status(ctx)
		if err != nil {
			return err
		}
		list, err := k.c.MemberList(ctx, clientv3.WithSerializable())
		if err == nil {
			got <- answer{st, list}
		}
		return err
	})
	if err != nil {
		return
	}
	a := <-got
	for _, m := range a.list.Members {
		h.Members = append(h.Members, store.Member{Name: m.Name, Learner: m.IsLearner})
		if m.ID == a.st.Leader {
			h.Leader = m.Name
		}
	}
	var trouble []string
	for _, t := range a.st.Errors {
		if !strings.Contains(t, "no leader") { // Quorum says it
			trouble = append(trouble, t)
		}
	}
	h.Trouble = strings.Join(trouble, "; ")
}
