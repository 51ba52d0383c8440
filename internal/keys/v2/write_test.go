package v2

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"pgregory.net/rapid"
)

// answer of a request in these tests.
type answer struct {
	status int
	index  uint64
	header http.Header
	ev     Event
	bad    problem
}

// ask sends one form and decodes the answer.
func (b *bed) ask(t testing.TB, c *http.Client, method, path string, form ...string) (a answer) {
	t.Helper()
	q := url.Values{}
	for _, f := range form {
		k, v, _ := strings.Cut(f, "=")
		q.Set(k, v)
	}
	req, err := http.NewRequest(method, b.url+"/v2/keys"+path+"?"+q.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Error(err)
		return a
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	a.status, a.header = resp.StatusCode, resp.Header
	a.index, _ = strconv.ParseUint(resp.Header.Get("X-Etcd-Index"), 10, 64)
	_ = json.Unmarshal(body, &a.ev)
	_ = json.Unmarshal(body, &a.bad)
	return a
}

// TestCounter has many clients of two machines count with prevIndex: no count is lost.
func TestCounter(t *testing.T) {
	n := startNode(t)
	beds := []*bed{serve(t, n, nil), serve(t, n, nil)}
	c := browser(t)
	beds[0].ask(t, c, "PUT", "/n", "value=0")
	const clients, each = 8, 25
	var all sync.WaitGroup
	for i := range clients {
		b := beds[i%2]
		all.Go(func() {
			for done := 0; done < each; {
				old := b.ask(t, c, "GET", "/n").ev.Node
				if old == nil {
					return
				}
				v, _ := strconv.Atoi(*old.Value)
				a := b.ask(t, c, "PUT", "/n", "value="+strconv.Itoa(v+1), "prevIndex="+strconv.FormatUint(old.ModifiedIndex, 10))
				switch {
				case a.status == 200:
					done++
				case a.bad.Code != testFailed:
					t.Errorf("swap gives %d, %v", a.status, a.bad)
					return
				}
			}
		})
	}
	all.Wait()
	if got := *beds[1].ask(t, c, "GET", "/n").ev.Node.Value; got != strconv.Itoa(clients*each) {
		t.Errorf("%s counts, want %d", got, clients*each)
	}
}

// TestQueue has many clients of two machines append to one directory: names are unique, and rise in the order of the writes.
func TestQueue(t *testing.T) {
	n := startNode(t)
	beds := []*bed{serve(t, n, nil), serve(t, n, nil)}
	c := browser(t)
	const clients, each = 8, 20
	var all sync.WaitGroup
	for i := range clients {
		b := beds[i%2]
		all.Go(func() {
			for j := range each {
				if a := b.ask(t, c, "POST", "/q", fmt.Sprintf("value=%d-%d", i, j)); a.status != 201 {
					t.Errorf("append gives %d, %v", a.status, a.bad)
				}
				b.ask(t, c, "PUT", "/other", "value=x") // moves the index beside
			}
		})
	}
	all.Wait()
	nodes := beds[0].ask(t, c, "GET", "/q", "sorted=true").ev.Node.Nodes
	if len(nodes) != clients*each {
		t.Errorf("%d nodes, want %d", len(nodes), clients*each)
	}
	if !slices.IsSortedFunc(nodes, func(a, b *Node) int { return int(int64(a.CreatedIndex) - int64(b.CreatedIndex)) }) {
		t.Error("the order of names is not that of writes")
	}
}

// TestSameHistory has clients write through two machines while both are watched from the same index: both tell the same events.
func TestSameHistory(t *testing.T) {
	n := startNode(t)
	beds := []*bed{serve(t, n, nil), serve(t, n, nil)}
	c := browser(t)
	from := beds[0].ask(t, c, "PUT", "/h/start", "value=x").index + 1
	const writes = 120
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for j := range writes / 4 {
				k := fmt.Sprintf("/h/%d/%d", j%3, i)
				switch j % 4 {
				case 0, 1:
					beds[i%2].ask(t, c, "PUT", k, "value=x", "ttl=100")
				case 2:
					beds[i%2].ask(t, c, "PUT", k, "prevExist=true", "value=y")
				default:
					beds[i%2].ask(t, c, "DELETE", fmt.Sprintf("/h/%d", j%3), "recursive=true")
				}
			}
		})
	}
	all.Wait()
	end := beds[0].ask(t, c, "PUT", "/h/end", "value=x").index
	var told [2][]string
	for i, b := range beds {
		for at := from; at <= end; {
			a := b.ask(t, c, "GET", "/h", "wait=true", "recursive=true", "waitIndex="+strconv.FormatUint(at, 10))
			if a.ev.Node == nil {
				t.Fatalf("%d: %v", a.status, a.bad)
			}
			blank(a.ev.Node)
			blank(a.ev.PrevNode)
			text, _ := json.Marshal(a.ev)
			told[i] = append(told[i], string(text))
			at = a.ev.Node.ModifiedIndex + 1
		}
	}
	if !slices.Equal(told[0], told[1]) || len(told[0]) < writes/2 {
		t.Errorf("%d and %d events:\n%s\n%s", len(told[0]), len(told[1]), strings.Join(told[0], "\n"), strings.Join(told[1], "\n"))
	}
}

// blank removes what depends on when one looks.
func blank(n *Node) {
	if n != nil {
		n.TTL = 0
	}
}

// TestSharedWithV3 reads and watches by v2 what v3 writes, and the other way round.
func TestSharedWithV3(t *testing.T) {
	b, c, ctx := newBed(t, nil), browser(t), t.Context()
	put := func(k, v string, o ...clientv3.OpOption) int64 {
		t.Helper()
		resp, err := b.client.Put(ctx, k, v, o...)
		if err != nil {
			t.Fatal(err)
		}
		return resp.Header.Revision
	}
	rev := put("/app/db/url", "one")
	for _, odd := range []string{"noslash", "/", "//x", "/app//x", "/app/../x", "/app/./y"} { // keys that v2 cannot name
		put(odd, "?")
	}
	a := b.ask(t, c, "GET", "/app", "recursive=true")
	if len(a.ev.Node.Nodes) != 1 || len(a.ev.Node.Nodes[0].Nodes) != 1 || *a.ev.Node.Nodes[0].Nodes[0].Value != "one" || a.ev.Node.CreatedIndex == 0 {
		t.Errorf("listing of what v3 wrote: %+v", a.ev.Node)
	}
	if a := b.ask(t, c, "GET", "/app/db/url"); a.ev.Node.ModifiedIndex != uint64(rev) || a.ev.Node.CreatedIndex != uint64(rev) {
		t.Errorf("%+v", a.ev.Node)
	}
	// What v3 does becomes events.
	grant, err := b.client.Grant(ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	first := put("/app/db/url", "two", clientv3.WithLease(grant.ID))
	if _, err := b.client.Delete(ctx, "/app/db/url"); err != nil {
		t.Fatal(err)
	}
	put("/app/db/url", "three")
	want := []string{"set two", "expire ", "set three"}
	for at := uint64(first); len(want) > 0; {
		a := b.ask(t, c, "GET", "/app", "wait=true", "recursive=true", "waitIndex="+strconv.FormatUint(at, 10))
		if a.ev.Node == nil {
			t.Fatal(a.bad)
		}
		got := a.ev.Action + " "
		if a.ev.Node.Value != nil {
			got += *a.ev.Node.Value
		}
		if got != want[0] {
			t.Errorf("event %q, want %q", got, want[0])
		}
		want, at = want[1:], a.ev.Node.ModifiedIndex+1
	}
	// v2's own keys as v3 sees them.
	b.ask(t, c, "PUT", "/app/x", "value=plain")
	b.ask(t, c, "PUT", "/app/empty", "dir=true")
	resp, err := b.client.Get(ctx, "/app/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, kv := range resp.Kvs {
		seen[string(kv.Key)] = string(kv.Value)
	}
	if v, ok := seen["/app/empty/"]; !ok || v != "" || seen["/app/x"] != "plain" {
		t.Errorf("v3 sees %v", seen)
	}
	// A directory that only v3 made goes with its last key, one of v2 stays.
	if _, err := b.client.Delete(ctx, "/app/db/url"); err != nil {
		t.Fatal(err)
	}
	if a := b.ask(t, c, "GET", "/app/db"); a.status != 404 {
		t.Errorf("%d %+v", a.status, a.ev.Node)
	}
	if a := b.ask(t, c, "DELETE", "/app", "recursive=true"); a.status != 200 {
		t.Errorf("%d %v", a.status, a.bad)
	}
	if resp, err := b.client.Get(ctx, side, clientv3.WithRange(sideLast)); err != nil || len(resp.Kvs) != 0 {
		t.Errorf("something is left: %v, %v", resp, err)
	}
}

// TestLease shows a TTL as v3 sees it: a lease that ends a little later and is shared. When a v3 client has revoked it another is made.
func TestLease(t *testing.T) {
	b, c, ctx := newBed(t, nil), browser(t), t.Context()
	var ids [2]clientv3.LeaseID
	for i := range ids {
		for j := range 20 {
			if a := b.ask(t, c, "PUT", fmt.Sprint("/l/", j), "value=x", "ttl=100"); a.status > 201 {
				t.Fatal(a.bad)
			}
		}
		leases, err := b.client.Leases(ctx)
		if err != nil || len(leases.Leases) == 0 || len(leases.Leases) > 2 {
			t.Errorf("%+v, %v", leases, err)
		}
		kv, err := b.client.Get(ctx, "/l/19")
		if err != nil || len(kv.Kvs) != 1 {
			t.Fatal(kv, err)
		}
		ids[i] = clientv3.LeaseID(kv.Kvs[0].Lease)
		ttl, err := b.client.TimeToLive(ctx, ids[i])
		if err != nil || ttl.TTL < 100 || ttl.GrantedTTL > 100+2*16+backstop {
			t.Errorf("lease %+v, %v", ttl, err)
		}
		for _, l := range leases.Leases {
			if _, err := b.client.Revoke(ctx, l.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	if ids[0] == ids[1] {
		t.Error("the lease that was revoked is still used")
	}
}

// TestLeaseEnd bounds when leases end.
func TestLeaseEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now, left := rapid.Int64Range(1e9, 3e9).Draw(t, "now"), rapid.Int64Range(-5, 1e10).Draw(t, "left")
		end := leaseEnd(now, left)
		least := now + min(max(left, 0), maxLease/2) + backstop
		if end <= least || end > least+max(16, (least-now)/4) || end-now > maxLease {
			t.Fatalf("%d s end after %d s", left, end-now)
		}
	})
}

// TestExpireOnce has three machines wait for the same ends: each is told once.
func TestExpireOnce(t *testing.T) {
	n := startNode(t)
	beds := []*bed{serve(t, n, nil), serve(t, n, nil), serve(t, n, nil)}
	c := browser(t)
	from := beds[0].ask(t, c, "PUT", "/e/dir", "dir=true", "ttl=1").index
	for i := range 20 {
		beds[i%3].ask(t, c, "PUT", fmt.Sprintf("/e/dir/%d", i), "value=x", "ttl=500")
		beds[i%3].ask(t, c, "PUT", fmt.Sprintf("/e/%d", i), "value=x", "ttl=1")
	}
	ended := map[string]int{}
	for at := from; len(ended) < 21; {
		a := beds[1].ask(t, c, "GET", "/e", "wait=true", "recursive=true", "waitIndex="+strconv.FormatUint(at, 10))
		if a.ev.Node == nil {
			t.Fatal(a.bad)
		}
		if a.ev.Action == actExpire {
			ended[a.ev.Node.Key]++
		}
		at = a.ev.Node.ModifiedIndex + 1
	}
	for k, n := range ended {
		if n != 1 {
			t.Errorf("%s ended %d times", k, n)
		}
	}
	if a := beds[2].ask(t, c, "GET", "/e", "recursive=true"); len(a.ev.Node.Nodes) != 0 {
		t.Errorf("left: %+v", a.ev.Node.Nodes)
	}
	resp, err := beds[0].client.Get(context.Background(), sideDetail, clientv3.WithPrefix())
	if err != nil || len(resp.Kvs) != 0 {
		t.Errorf("details are left: %v, %v", resp, err)
	}
}
