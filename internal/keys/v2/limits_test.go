package v2

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestLimits refuses what is too large or too much, with a word.
func TestLimits(t *testing.T) {
	b, c := newBed(t, func(o *Options) { o.MaxValue, o.MaxWatches, o.MaxList = 1000, 2, 5000 }), browser(t)
	put := func(size int) (int, string) {
		resp, err := c.Post(b.url+"/v2/keys/big", "application/x-www-form-urlencoded", strings.NewReader("value="+strings.Repeat("x", size)))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := bufio.NewReader(resp.Body).ReadString('\n')
		return resp.StatusCode, text
	}
	for size, want := range map[int]int{1000: 201, 1001: 413, 200_000: 413} {
		if got, text := put(size); got != want || got == 413 && !strings.Contains(text, `"errorCode":210`) {
			t.Errorf("%d bytes: %d, %s", size, got, text)
		}
	}
	deep := strings.Repeat("/a", maxDepth+1)
	for path, want := range map[string]int{deep: 201, deep + "/a": 400} {
		if a := b.ask(t, c, "PUT", path, "value=x"); a.status != want {
			t.Errorf("%d names: %d, %v", strings.Count(path, "/"), a.status, a.bad)
		}
	}
	for i := range 6 {
		b.ask(t, c, "PUT", fmt.Sprint("/l/", i), "value="+strings.Repeat("x", 900))
	}
	if a := b.ask(t, c, "GET", "/l"); a.status != 500 || a.bad.Code != internal || !strings.Contains(a.bad.Cause, "too large") {
		t.Errorf("listing: %d, %v", a.status, a.bad)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := range 3 {
		req, _ := http.NewRequestWithContext(ctx, "GET", b.url+"/v2/keys/w?wait=true", nil)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if want := map[bool]int{true: 200, false: 503}[i < 2]; resp.StatusCode != want {
			t.Errorf("watch %d: %d", i, resp.StatusCode)
		}
	}
}

// TestSlowRequest ends a connection whose request does not come.
func TestSlowRequest(t *testing.T) {
	b := newBed(t, func(o *Options) { o.Grace = 100 * time.Millisecond })
	conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nvalue=")
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil && resp.StatusCode != 400 {
		t.Errorf("%d", resp.StatusCode)
	}
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Error("the connection stays")
	}
}

// TestSlowStream ends a stream that nobody reads, and lets the others go on.
func TestSlowStream(t *testing.T) {
	b, c := newBed(t, func(o *Options) { o.Grace = 200 * time.Millisecond }), browser(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	fmt.Fprint(conn, "GET /v2/keys/s?wait=true&stream=true&recursive=true HTTP/1.1\r\nHost: x\r\n\r\n")
	deadline := time.Now().Add(30 * time.Second)
	for b.api.window.watching() == 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	big := strings.Repeat("x", 100_000)
	for i := 0; b.api.window.watching() > 0; i++ {
		if time.Now().After(deadline) {
			t.Fatal("the stream stays")
		}
		resp, err := c.Post(b.url+"/v2/keys/s", "application/x-www-form-urlencoded", strings.NewReader("value="+big))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 201 {
			t.Fatal(resp.Status)
		}
	}
}

// TestCompacted compacts what a machine has not seen yet: what waits there ends, older indexes are refused, newer ones are answered.
func TestCompacted(t *testing.T) {
	n := startNode(t)
	b, c := serve(t, n, nil), browser(t)
	first := b.ask(t, c, "PUT", "/a", "value=1").index
	for range 5 {
		b.ask(t, c, "PUT", "/a", "value=2", "ttl=100")
	}
	last := b.ask(t, c, "PUT", "/a", "value=3").index
	for {
		ok, moved := b.api.window.reached(last)
		if ok {
			break
		}
		<-moved
	}
	if _, err := b.raw.Compact(t.Context(), int64(last)-1); err != nil {
		t.Fatal(err)
	}
	// A machine that begins now finds a gap.
	late := serve(t, n, nil)
	wait := func(b *bed, index uint64) answer {
		return b.ask(t, c, "GET", "/a", "wait=true", "waitIndex="+strconv.FormatUint(index, 10))
	}
	if a := wait(b, first); a.ev.Node == nil || a.ev.Node.ModifiedIndex != first {
		t.Errorf("who has seen it answers %d, %v", a.status, a.bad)
	}
	if a := wait(late, first); a.status != 400 || a.bad.Code != indexCleared {
		t.Errorf("who has not answers %d, %v, %+v", a.status, a.bad, a.ev.Node)
	}
	if a := wait(late, last); a.ev.Node == nil || *a.ev.Node.Value != "3" {
		t.Errorf("what is left is answered with %d, %v", a.status, a.bad)
	}
}

// TestBackstop takes away a directory's marker as its lease does when no machine serves keys: what is below follows once one does.
func TestBackstop(t *testing.T) {
	n := startNode(t)
	b, c := serve(t, n, nil), browser(t)
	b.ask(t, c, "PUT", "/d", "dir=true", "ttl=2")
	b.ask(t, c, "PUT", "/d/x", "value=1")
	b.ask(t, c, "PUT", "/f", "value=1", "ttl=2")
	for _, k := range []string{"/d/", "/f"} { // they may share one
		kv, err := b.client.Get(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		if len(kv.Kvs) == 1 {
			if _, err := b.client.Revoke(t.Context(), clientv3.LeaseID(kv.Kvs[0].Lease)); err != nil {
				t.Fatal(err)
			}
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		left, err := b.client.Get(t.Context(), side, clientv3.WithRange(sideLast), clientv3.WithCountOnly())
		details, err2 := b.client.Get(t.Context(), sideDetail, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		if left.Count+details.Count == 0 && b.ask(t, c, "GET", "/d/x").status == 404 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d details are left", details.Count)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
