package v2

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// side of the comparison: the oracle or ours.
type party struct {
	url  string
	http *http.Client
	base int64 // the index when the run began: what is compared is relative to it
}

// reply is an answer with relative indexes and without times.
type reply struct {
	Status int
	Index  string
	Event  *Event
	Error  string
	Text   string
}

// call is one drawn request. Relative indexes are given to each side as its own.
type call struct {
	method, key           string
	form                  url.Values
	prevIndex, waitIndex  int64
	hasPrev, hasWait      bool
	body, stream, recurse bool
}

func (c call) String() string {
	s := c.method + " " + c.key + "?" + c.form.Encode()
	if c.hasPrev {
		s += fmt.Sprint(" prevIndex=base+", c.prevIndex)
	}
	if c.hasWait {
		s += fmt.Sprint(" waitIndex=base+", c.waitIndex)
	}
	return s
}

func (p *party) request(ctx context.Context, c call) (*http.Response, error) {
	form := url.Values{}
	for k, v := range c.form {
		form[k] = v
	}
	if c.hasPrev {
		form.Set("prevIndex", strconv.FormatInt(max(1, p.base+c.prevIndex), 10))
	}
	if c.hasWait {
		form.Set("waitIndex", strconv.FormatInt(max(1, p.base+c.waitIndex), 10))
	}
	// In-order names hold indexes: they are drawn as relative ones.
	u := p.url + "/v2/keys" + nameIndex.ReplaceAllStringFunc(c.key, func(s string) string { return p.shift(s, p.base) })
	var body io.Reader
	if c.body {
		body = strings.NewReader(form.Encode())
	} else {
		u += "?" + form.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, c.method, u, body)
	if err != nil {
		return nil, err
	}
	if c.body {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return p.http.Do(req)
}

var (
	nameIndex  = regexp.MustCompile(`/\d{20}`)
	causeIndex = regexp.MustCompile(`\[(\d+) != (\d+)\]`)
	causeOld   = regexp.MustCompile(`cleared \[(\d+)/(\d+)\]`)
)

func (p *party) shift(name string, by int64) string {
	n, _ := strconv.ParseInt(name[1:], 10, 64)
	return fmt.Sprintf("/%020d", n+by)
}

func (p *party) relative(n uint64) uint64 {
	if n == 0 {
		return 0
	}
	return uint64(int64(n) - p.base + 1_000_000)
}

// names makes the indexes in names and causes relative.
func (p *party) names(s string) string {
	s = nameIndex.ReplaceAllStringFunc(s, func(s string) string { return p.shift(s, -p.base) })
	for _, re := range []*regexp.Regexp{causeIndex, causeOld} {
		s = re.ReplaceAllStringFunc(s, func(s string) string {
			return regexp.MustCompile(`\d+`).ReplaceAllStringFunc(s, func(d string) string {
				n, _ := strconv.ParseInt(d, 10, 64)
				return strconv.FormatInt(n-p.base, 10)
			})
		})
	}
	return s
}

func (p *party) node(n *Node) {
	if n == nil {
		return
	}
	n.Key, n.ModifiedIndex, n.CreatedIndex = p.names(n.Key), p.relative(n.ModifiedIndex), p.relative(n.CreatedIndex)
	if n.Expiration != nil {
		t := n.Expiration.Round(time.Hour) // that there is one is compared; when, in the tests of TTLs
		n.Expiration, n.TTL = &t, min(n.TTL, 1)
	}
	for _, c := range n.Nodes {
		p.node(c)
	}
	slices.SortFunc(n.Nodes, func(a, b *Node) int { return strings.Compare(a.Key, b.Key) })
}

// understand makes an answer comparable.
func (p *party) understand(status int, h http.Header, body string) (r reply) {
	r.Status, r.Text = status, ""
	if n, err := strconv.ParseUint(h.Get("X-Etcd-Index"), 10, 64); err == nil {
		r.Index = fmt.Sprint(p.relative(n))
	}
	var both struct {
		Event
		problem
	}
	switch {
	case json.Unmarshal([]byte(body), &both) != nil:
		r.Text = body
	case both.Code != 0:
		r.Error = fmt.Sprintf("%d %s (%s) at %d", both.Code, both.problem.Message, p.names(both.Cause), p.relative(both.problem.Index))
	default:
		r.Event = p.event(body)
	}
	return r
}

func (p *party) event(line string) *Event {
	var ev Event
	if json.Unmarshal([]byte(line), &ev) != nil {
		return &Event{Action: "not an event: " + line}
	}
	p.node(ev.Node)
	p.node(ev.PrevNode)
	return &ev
}

func (p *party) ask(ctx context.Context, c call) (reply, error) {
	resp, err := p.request(ctx, c)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return p.understand(resp.StatusCode, resp.Header, string(b)), err
}

// index asks for the current index.
func (p *party) index(ctx context.Context) (int64, error) {
	resp, err := p.request(ctx, call{method: "GET", key: "/"})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return strconv.ParseInt(resp.Header.Get("X-Etcd-Index"), 10, 64)
}

// wipe removes all keys and sets base.
func (p *party) wipe(ctx context.Context) error {
	for _, name := range names {
		resp, err := p.request(ctx, call{method: "DELETE", key: "/" + name, form: url.Values{"recursive": {"true"}}})
		if err != nil {
			return err
		}
		resp.Body.Close()
	}
	var err error
	p.base, err = p.index(ctx)
	return err
}

// listening is one watch on one side.
type listening struct {
	mu    sync.Mutex
	head  reply
	lines []*Event
	ended bool
	stop  context.CancelFunc
	done  chan struct{}
}

func (p *party) listen(ctx context.Context, c call) (*listening, error) {
	ctx, cancel := context.WithCancel(ctx)
	resp, err := p.request(ctx, c)
	if err != nil {
		cancel()
		return nil, err
	}
	l := &listening{stop: cancel, done: make(chan struct{})}
	if resp.StatusCode != 200 {
		b, _ := io.ReadAll(resp.Body)
		l.head = p.understand(resp.StatusCode, resp.Header, string(b))
		l.ended = true
		resp.Body.Close()
		close(l.done)
		return l, nil
	}
	l.head = p.understand(resp.StatusCode, resp.Header, `{}`)
	go func() {
		defer close(l.done)
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			ev := p.event(lines.Text())
			l.mu.Lock()
			// etcd tells a stream twice that the very node it watches was removed.
			if n := len(l.lines); n == 0 || !cmp.Equal(l.lines[n-1], ev, eventOpts) {
				l.lines = append(l.lines, ev)
			}
			l.mu.Unlock()
		}
		l.mu.Lock()
		l.ended = true
		l.mu.Unlock()
	}()
	return l, nil
}

func (l *listening) got() ([]*Event, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines), l.ended
}

var eventOpts = cmp.AllowUnexported(Event{})

var names = []string{"a", "b", "_h", "a-b"}

// drawKey draws the name of a node, at most three deep.
func drawKey(t *rapid.T) string {
	key := ""
	for range rapid.IntRange(1, 3).Draw(t, "depth") {
		key += "/" + rapid.SampledFrom(names).Draw(t, "name")
	}
	if rapid.IntRange(0, 60).Draw(t, "root") == 0 {
		return "/"
	}
	return key
}

func drawCall(t *rapid.T, now int64) call {
	c := call{key: drawKey(t), form: url.Values{}}
	maybe := func(odds int, name string, values ...string) {
		if rapid.IntRange(1, 100).Draw(t, "has "+name) <= odds {
			c.form.Set(name, rapid.SampledFrom(values).Draw(t, name))
		}
	}
	c.method = rapid.SampledFrom([]string{"PUT", "PUT", "PUT", "PUT", "PUT", "POST", "DELETE", "DELETE", "GET", "GET", "GET", "HEAD"}).Draw(t, "method")
	switch c.method {
	case "PUT", "POST":
		c.body = rapid.Bool().Draw(t, "body")
		maybe(80, "value", "v1", "v2", "<é&>", "")
		maybe(20, "dir", "true", "true", "false", "x")
		maybe(35, "prevExist", "true", "false", "1", "no")
		maybe(20, "ttl", "1000", "500", "", "-1", "4000000000", "x")
		maybe(8, "refresh", "true", "false")
		maybe(5, "noValueOnSuccess", "true")
		maybe(3, "wait", "true")
	case "DELETE":
		maybe(40, "recursive", "true", "false")
		maybe(40, "dir", "true", "")
	default:
		maybe(40, "recursive", "true")
		maybe(40, "sorted", "true")
		maybe(20, "quorum", "true", "false", "y")
	}
	if c.method != "GET" && c.method != "HEAD" {
		maybe(12, "prevValue", "v1", "v2", "")
		if c.hasPrev = rapid.IntRange(1, 100).Draw(t, "has prevIndex") <= 12; c.hasPrev {
			c.prevIndex = now - rapid.Int64Range(0, 12).Draw(t, "prevIndex")
		}
	}
	return c
}

func drawWatch(t *rapid.T, now int64) call {
	c := call{method: "GET", key: drawKey(t), form: url.Values{"wait": {"true"}}}
	if c.recurse = rapid.Bool().Draw(t, "recursive"); c.recurse {
		c.form.Set("recursive", "true")
	}
	if c.stream = rapid.Bool().Draw(t, "stream"); c.stream {
		c.form.Set("stream", "true")
	}
	if c.hasWait = rapid.IntRange(0, 2).Draw(t, "waits") == 0; c.hasWait {
		c.waitIndex = now - rapid.SampledFrom([]int64{-3, -1, 0, 1, 2, 5, 20, 100, 997, 998, 999, 1000, 1001, 1100}).Draw(t, "waitIndex")
	}
	return c
}

// rival is both sides.
type rival struct {
	ours, theirs *party
	calls        int
}

// both asks both sides at once.
func (r *rival) both(t *rapid.T, c call) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var got, want reply
	var err1, err2 error
	var g sync.WaitGroup
	g.Go(func() { got, err1 = r.ours.ask(ctx, c) })
	g.Go(func() { want, err2 = r.theirs.ask(ctx, c) })
	g.Wait()
	if err1 != nil || err2 != nil {
		t.Fatalf("%s: %v, %v", c, err1, err2)
	}
	r.calls++
	if d := cmp.Diff(want, got, eventOpts); d != "" {
		t.Fatalf("%s: (-etcd 3.4 +ours)\n%s", c, d)
	}
}

// pair is one watch on both sides.
type pair struct {
	call         call
	ours, theirs *listening
}

func (r *rival) listen(t *rapid.T, ctx context.Context, c call) pair {
	a, err1 := r.ours.listen(ctx, c)
	b, err2 := r.theirs.listen(ctx, c)
	if err1 != nil || err2 != nil {
		t.Fatalf("%s: %v, %v", c, err1, err2)
	}
	r.calls++
	if d := cmp.Diff(b.head, a.head, eventOpts); d != "" {
		t.Fatalf("%s: (-etcd 3.4 +ours)\n%s", c, d)
	}
	return pair{c, a, b}
}

// settle compares what the watches of both sides got. Ours may come a moment later than the answer to the write.
func (p pair) settle(t *rapid.T) {
	want, ended := p.theirs.got()
	deadline := time.Now().Add(5 * time.Second)
	var got []*Event
	for {
		var over bool
		got, over = p.ours.got()
		if len(got) >= len(want) && (over || !ended) || time.Now().After(deadline) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if p.call.stream && p.call.hasWait && len(want) > 0 && len(got) > 0 {
		// A stream that begins in the past ends for etcd with the first event; ours goes on.
		got, want = got[:1], want[:1]
	}
	if d := cmp.Diff(want, got, eventOpts); d != "" {
		t.Fatalf("%s: events differ (-etcd 3.4 +ours)\n%s", p.call, d)
	}
}

// TestDifferential asks the same of Debian's etcd 3.4 and of us, one request after the other, with watches going on at the same time.
func TestDifferential(t *testing.T) {
	r := &rival{ours: &party{url: newBed(t, nil).url, http: browser(t)}, theirs: &party{url: startOracle(t), http: browser(t)}}
	const need = 20_000
	perRun, least := 230, need
	if testing.Short() {
		least = 1000
	}
	for _, p := range []*party{r.ours, r.theirs} { // fill the window: what etcd wrote for itself is out of it then
		for range 1210 {
			resp, err := p.request(t.Context(), call{method: "PUT", key: "/a", form: url.Values{"value": {"x"}}})
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}
	for r.calls < least && !t.Failed() {
		rapid.Check(t, func(t *rapid.T) {
			if r.calls >= least {
				return
			}
			r.run(t, perRun)
		})
	}
	t.Logf("%d requests", r.calls)
}

func (r *rival) run(t *rapid.T, n int) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, p := range []*party{r.ours, r.theirs} {
		if err := p.wipe(ctx); err != nil {
			t.Fatal(err)
		}
	}
	var pairs []pair
	defer func() {
		cancel()
		for _, p := range pairs {
			<-p.ours.done
			<-p.theirs.done
		}
	}()
	for range n {
		now, err := r.ours.index(ctx)
		if err != nil {
			t.Fatal(err)
		}
		now -= r.ours.base
		switch rapid.IntRange(0, 200).Draw(t, "what") {
		case 0, 1, 2, 3, 4, 5, 6, 7, 8, 9:
			pairs = append(pairs, r.listen(t, ctx, drawWatch(t, now)))
		case 10:
			r.brief(t, drawKey(t))
		default:
			r.both(t, drawCall(t, now))
		}
	}
	time.Sleep(5 * time.Millisecond) // for events that should not come
	for _, p := range pairs {
		p.settle(t)
	}
}

// brief writes what expires at once and waits until both sides have removed it.
func (r *rival) brief(t *rapid.T, key string) {
	if rapid.IntRange(0, 9).Draw(t, "brief") != 0 {
		return
	}
	r.both(t, call{method: "PUT", key: key, form: url.Values{"ttl": {"0"}, "value": {"short"}}})
	deadline := time.Now().Add(5 * time.Second)
	for {
		a, err1 := r.ours.index(context.Background())
		b, err2 := r.theirs.index(context.Background())
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		ra, _ := r.ours.ask(context.Background(), call{method: "GET", key: key})
		rb, _ := r.theirs.ask(context.Background(), call{method: "GET", key: key})
		if a-r.ours.base == b-r.theirs.base && ra.Event == nil == (rb.Event == nil) && (ra.Event == nil || ra.Event.Node.Value == nil || *ra.Event.Node.Value != "short") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not expire", key)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
