package keys

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"flota/internal/fault"
	"flota/internal/keys/access"
	"flota/internal/store"
)

func contains(s, part string) bool { return strings.Contains(s, part) }

// post sends one JSON request over a connection of its own.
func post(t testing.TB, addr, path, body string) (int, string, http.Header) {
	t.Helper()
	return request(t, http.MethodPost, "http://"+addr+path, body, nil)
}

func request(t testing.TB, method, url, body string, head http.Header) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(patientCtx(t), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range head {
		req.Header[k] = v
	}
	if h := req.Header.Get("Host"); h != "" {
		req.Host = h
	}
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

// TestBadInput sends what is too large, too deep or not what it says, to a voter and to a machine without a member.
func TestBadInput(t *testing.T) {
	b := newBed(t, 1, true, nil)
	ctx := patientCtx(t)
	deep := clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut("d", "")}, nil)
	for range 20 {
		deep = clientv3.OpTxn(nil, []clientv3.Op{deep}, nil)
	}
	big := strings.Repeat("x", 10<<20)
	for i := range b.boxes {
		c := b.dial(i)
		for name, x := range map[string]struct {
			op   clientv3.Op
			want string // part of the error; "": none
		}{
			"a value at the limit":       {clientv3.OpPut("v", big[:valueBytes]), ""},
			"a value above it":           {clientv3.OpPut("v", big[:valueBytes+1]), "the limit is 1048576"},
			"a value of 10 MB":           {clientv3.OpPut("v", big), "larger than max"},
			"a key at the limit":         {clientv3.OpPut(big[:keyBytes], "v"), ""},
			"a key of 10 KB":             {clientv3.OpPut(big[:10<<10], "v"), "the limit is 4096"},
			"a range to a key of 10 KB":  {clientv3.OpGet("a", clientv3.WithRange(big[:10<<10])), "the limit is 4096"},
			"no key":                     {clientv3.OpPut("", "v"), "key is not provided"},
			"a key that is not UTF-8":    {clientv3.OpPut("\xff\xfe\x00", "\xc0"), ""},
			"transactions in each other": {deep, "deep in each other"},
		} {
			_, err := c.Do(ctx, x.op)
			if x.want == "" && err != nil || x.want != "" && (err == nil || !contains(err.Error(), x.want)) {
				t.Errorf("%d: %s gives %v", i, name, err)
			}
		}
		for _, x := range []struct {
			name, path, body string
			code             int
		}{
			{"no JSON", "/v3/kv/put", "{", 400},
			{"not UTF-8", "/v3/kv/put", "{\"key\":\"\xff\xfe\"}", 400},
			{"not base64", "/v3/kv/put", `{"key":"%"}`, 400},
			{"an op without content", "/v3/kv/txn", `{"success":[{}]}`, 400},
			{"10 MB", "/v3/kv/put", `{"key":"YQ==","value":"` + big + `"}`, 413},
			{"a snapshot", "/v3/maintenance/snapshot", "{}", 403},
			{"compaction", "/v3/kv/compaction", "{}", 403},
			{"nothing there", "/v3/none", "{}", 404},
			{"an old path", "/v3beta/kv/range", `{"key":"YQ=="}`, 200},
		} {
			if code, text, _ := post(t, b.boxes[i].addr, x.path, x.body); code != x.code {
				t.Errorf("%d: %s gives %d %s", i, x.name, code, text)
			}
		}
		for _, h := range []http.Header{{"Origin": {"http://evil.example"}}, {"Host": {"evil.example"}}} {
			if code, text, _ := request(t, "GET", "http://"+b.boxes[i].addr+"/version", "", h); code != 403 {
				t.Errorf("%d: %v gives %d %s", i, h, code, text)
			}
		}
		if code, text, _ := request(t, "GET", "http://"+b.boxes[i].addr+"/health", "", nil); code != 200 || text != `{"health":"true"}` {
			t.Errorf("%d: health is %d %s", i, code, text)
		}
	}
}

// TestTooManyConnections fills the front: one more is told so in its own protocol, and those that are there go on.
func TestTooManyConnections(t *testing.T) {
	b := newBed(t, 1, false, func(o *Options) { o.Limits.Conns = 20 })
	ctx := patientCtx(t)
	c := b.dial(0)
	if _, err := c.Put(ctx, "a", "1"); err != nil {
		t.Fatal(err)
	}
	var idle []net.Conn
	for range 19 {
		idle = append(idle, open1(t, b.boxes[0].addr))
	}
	one := open1(t, b.boxes[0].addr)
	defer one.Close()
	fmt.Fprint(one, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(one), nil); err != nil || resp.StatusCode != 503 {
		t.Errorf("HTTP gives %v, %v", resp, err)
	}
	two := open1(t, b.boxes[0].addr)
	defer two.Close()
	fmt.Fprint(two, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	if text, err := io.ReadAll(two); err != nil || !bytes.Contains(text, []byte("too many connections")) {
		t.Errorf("HTTP/2 gives %q, %v", text, err)
	}
	if _, err := c.Put(ctx, "a", "2"); err != nil {
		t.Error(err)
	}
	for _, x := range idle {
		x.Close()
	}
	for {
		_, err := b.dial(0).Get(ctx, "a")
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

func open1(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestQuota fills the quota: the error says so, deleting makes room, and the cluster's own keys are not concerned.
func TestQuota(t *testing.T) {
	b := newBed(t, 1, true, func(o *Options) { o.Limits.QuotaBytes = 5 << 20 })
	ctx := patientCtx(t)
	value := strings.Repeat("x", 1<<19)
	c := b.dial(1)
	var err error
	n := 0
	for ; n < 100 && err == nil; n++ {
		_, err = c.Put(ctx, fmt.Sprint("k", n), value)
		b.settle(ctx)
	}
	if n < 9 || n > 11 || status.Code(err) != codes.ResourceExhausted && !contains(err.Error(), "quota of 5.0 MiB") {
		t.Fatalf("put %d gives %v", n, err)
	}
	if w := b.boxes[0].front.Warnings(); len(w) != 1 || !contains(w[0], "of their quota of 5.0 MiB") {
		t.Errorf("warnings are %q", w)
	}
	if _, _, err := b.boxes[0].node.KV().Commit(ctx, store.Txn{Then: []store.Op{{Key: "flota/x", Value: []byte(value)}}}); err != nil {
		t.Errorf("the cluster's own key: %v", err)
	}
	if _, err := c.Delete(ctx, "k", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	b.settle(ctx)
	if _, err := c.Put(ctx, "k", value); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if w := b.boxes[0].front.Warnings(); len(w) != 0 {
		t.Errorf("warnings are %q", w)
	}
}

// settle waits until the use of the keys that voter 1 counted agrees with what is there.
func (b *bed) settle(ctx context.Context) {
	b.t.Helper()
	u := b.boxes[0].front.guard.usage
	for ctx.Err() == nil {
		var sum int64
		resp, err := b.boxes[0].front.apps.Get(ctx, "\x00", clientv3.WithFromKey())
		if err != nil {
			b.t.Fatal(err)
		}
		for _, kv := range resp.Kvs {
			sum += sizeOf(kv.Key, kv.Value)
		}
		if u.bytes.Load() == sum {
			return
		}
	}
	b.t.Error("the use of the keys is counted wrongly")
}

// TestWatchLimit asks for one watch too many: it is refused, the others go on.
func TestWatchLimit(t *testing.T) {
	b := newBed(t, 1, true, func(o *Options) { o.Limits.Watches = 10 })
	ctx := patientCtx(t)
	for i := range b.boxes {
		c := b.dial(i)
		var all []clientv3.WatchChan
		for n := range 10 {
			w := c.Watch(ctx, fmt.Sprint("k", n), clientv3.WithCreatedNotify())
			if r := <-w; r.Err() != nil {
				t.Fatal(r.Err())
			}
			all = append(all, w)
		}
		if r := <-c.Watch(ctx, "more"); r.Err() == nil || !contains(r.Err().Error(), "too many watches on this connection") {
			t.Errorf("%d: the watch gives %v", i, r.Err())
		}
		if _, err := c.Put(ctx, "k5", "x"); err != nil {
			t.Fatal(err)
		}
		if r := <-all[5]; len(r.Events) != 1 {
			t.Errorf("%d: %+v", i, r)
		}
		_ = c.Close()
	}
	for b.boxes[0].front.guard.watches.Load() != 0 {
		if ctx.Err() != nil {
			t.Fatal("watches are still counted")
		}
		pause(ctx, time.Millisecond)
	}
}

// words is an Auth with two tokens.
type words struct{}

// Check implements access.Auth.
func (words) Check(_ context.Context, credentials string) (access.Grant, error) {
	switch credentials {
	case "shop:secret", "shoptoken":
		return access.Grant{Prefixes: []access.Prefix{{Path: "/shop", Write: true}, {Path: "/read"}}}, nil
	case "all":
		return access.Grant{All: true}, nil
	}
	return access.Grant{}, fault.New(fault.Denied, "no such token")
}

// TestAccess asks with tokens: at a voter and at a machine without one, by gRPC and JSON.
func TestAccess(t *testing.T) {
	b := newBed(t, 1, true, func(o *Options) { o.Auth = words{} })
	ctx := patientCtx(t)
	for i := range b.boxes {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{b.boxes[i].addr}, Username: "shop", Password: "secret", DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for name, x := range map[string]struct {
			op clientv3.Op
			ok bool
		}{
			"write":           {clientv3.OpPut("/shop/a", "1"), true},
			"write elsewhere": {clientv3.OpPut("/other", "1"), false},
			"write to read":   {clientv3.OpPut("/read/a", "1"), false},
			"read":            {clientv3.OpGet("/read/a"), true},
			"read all":        {clientv3.OpGet("", clientv3.WithFromKey()), false},
			"read prefix":     {clientv3.OpGet("/shop/", clientv3.WithPrefix()), true},
			"delete all":      {clientv3.OpDelete("/", clientv3.WithPrefix()), false},
			"nested":          {clientv3.OpTxn(nil, nil, []clientv3.Op{clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpGet("/x")}, nil)}), false},
		} {
			if _, err := c.Do(ctx, x.op); (err == nil) != x.ok {
				t.Errorf("%d: %s gives %v", i, name, err)
			}
		}
		if r := <-c.Watch(ctx, "/other"); r.Err() == nil {
			t.Errorf("%d: a watch elsewhere is granted: %+v", i, r)
		}
		for token, want := range map[string]int{"": 401, "Bearer wrong": 403, "Bearer shoptoken": 200, "Basic c2hvcDpzZWNyZXQ=": 200, "all": 200} {
			code, text, _ := request(t, "POST", "http://"+b.boxes[i].addr+"/v3/kv/range", `{"key":"L3Nob3AvYQ=="}`, http.Header{"Authorization": {token}})
			if code != want {
				t.Errorf("%d: token %q gives %d %s", i, token, code, text)
			}
		}
	}
}
