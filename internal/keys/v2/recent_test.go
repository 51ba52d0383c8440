package v2

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// TestHistoryFitsTogether has two machines and a v3 client write the same few files at once. Whatever each remembers of them: both tell the same events, and what
// an event says was there is what the event before said is there.
func TestHistoryFitsTogether(t *testing.T) {
	n := startNode(t)
	beds := []*bed{serve(t, n, nil), serve(t, n, nil)}
	c := browser(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	begin, err := beds[0].client.Put(ctx, "/f/begin", "")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for j := range 60 {
				key, value := fmt.Sprint("/f/", r.IntN(3)), fmt.Sprint(i, "/", j)
				if r.IntN(10) == 0 {
					value += strings.Repeat("x", recentValue)
				}
				scribble(ctx, t, c, beds[i%2], r.IntN(10), key, value)
			}
		})
	}
	all.Wait()
	if _, err := beds[0].client.Put(ctx, "/f/end", ""); err != nil {
		t.Fatal(err)
	}
	first, second := history(ctx, t, beds[0], begin.Header.Revision), history(ctx, t, beds[1], begin.Header.Revision)
	if len(first) != len(second) {
		t.Fatalf("%d events at one machine, %d at the other", len(first), len(second))
	}
	now := map[string]*Node{}
	for i, ev := range first {
		if a, b := text(t, ev), text(t, second[i]); a != b {
			t.Fatalf("one machine says %s, the other %s", a, b)
		}
		key := ev.Node.Key
		if before := now[key]; before != nil && ev.PrevNode != nil && (ev.Node.Value == nil || strings.HasPrefix(*ev.Node.Value, "v3")) {
			// May be a v3 client's: it does not touch the detail, so nothing is told of that.
			before.CreatedIndex, before.Expiration = ev.PrevNode.CreatedIndex, ev.PrevNode.Expiration
		}
		if a, b := text(t, ev.PrevNode), text(t, now[key]); a != b {
			t.Fatalf("%s says of what was there: %s; the event before said: %s", text(t, ev), a, b)
		}
		if now[key] = ev.Node; ev.Node.Value == nil {
			delete(now, key)
		}
	}
}

// scribble makes one write of some kind. That conditions fail is part of it.
func scribble(ctx context.Context, t *testing.T, c *http.Client, b *bed, kind int, key, value string) {
	query, method := "", http.MethodPut
	switch kind {
	case 0:
		method = http.MethodDelete
	case 1:
		query = "?ttl=1000"
	case 2, 3, 4:
		query = "?prevExist=true"
	case 5:
		query = "?prevExist=false"
	case 6:
		if _, err := b.client.Put(ctx, key, "v3 "+value); err != nil {
			t.Error(err)
		}
		return
	case 7:
		if _, err := b.client.Delete(ctx, key); err != nil {
			t.Error(err)
		}
		return
	}
	body := url.Values{"value": {value}}.Encode()
	req, err := http.NewRequestWithContext(ctx, method, b.url+"/v2/keys"+key+query, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := c.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 500 {
		t.Errorf("%s %s%s: %s", method, key, query, resp.Status)
	}
}

// history gives the events of /f from an index on, up to /f/end.
func history(ctx context.Context, t *testing.T, b *bed, from int64) (all []*Event) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/v2/keys/f?wait=true&recursive=true&stream=true&waitIndex=%d", b.url, from+1), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for d := json.NewDecoder(resp.Body); ; {
		ev := &Event{}
		if err := d.Decode(ev); err != nil {
			t.Fatalf("after %d events: %v", len(all), err)
		}
		if ev.Node.Key == "/f/end" {
			return all
		}
		all = append(all, ev)
	}
}

// text shows something without the seconds that a TTL has left.
func text(t *testing.T, v any) string {
	t.Helper()
	switch v := v.(type) {
	case *Event:
		return fmt.Sprint(v.Action, text(t, v.Node), text(t, v.PrevNode))
	case *Node:
		if v == nil {
			return ""
		}
		n := *v
		n.TTL = 0
		b, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	return ""
}

// TestReadDetail holds the short way of reading details to the long one.
func TestReadDetail(t *testing.T) {
	check := func(text string) {
		var want detail
		if json.Unmarshal([]byte(text), &want) != nil {
			want = detail{}
		}
		if got := readDetail([]byte(text)); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
	for _, s := range []string{"", "x", "{", "{}", `{"created":5`, `{"created":5,"expires":}`, `{"expires":3,"created":4}`, ` {"created":5}`, `{"created":0}`, `{"created":5}}`, `{"created":-1}`} {
		check(s)
	}
	for range 2000 {
		b, err := json.Marshal(detail{Created: rand.Int64() >> rand.IntN(64), Expires: rand.Int64() >> rand.IntN(64)})
		if err != nil {
			t.Fatal(err)
		}
		check(string(b))
	}
	check(fmt.Sprintf(`{"created":%d,"expires":%d}`, int64(math.MaxInt64), int64(math.MaxInt64)))
	check(`{"created":9223372036854775808}`)
}

// TestRecentForgets: what is remembered is bounded, whatever is written.
func TestRecentForgets(t *testing.T) {
	r, p := newRecent(), &past{}
	for i := range 50_000 {
		kv := &mvccpb.KeyValue{Key: fmt.Append(nil, "/", i), Value: make([]byte, rand.IntN(2*recentValue)), ModRevision: int64(i)}
		r.saw(string(kv.Key), kv, nil)
		p.set(string(kv.Key), kv)
	}
	if n := len(r.young) + len(r.old); n > 2*recentBytes/recentCost {
		t.Errorf("%d files are remembered", n)
	}
	if n := len(p.young) + len(p.old); n > 4*recentBytes/recentCost {
		t.Errorf("the past of %d keys is remembered", n)
	}
}
