package v2

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// FuzzParse gives anything as query and body: an answer or a problem with a code that has a meaning, never a panic.
func FuzzParse(f *testing.F) {
	f.Add("PUT", "ttl=5&prevExist=true", "value=x&refresh=true")
	f.Add("GET", "wait=true&waitIndex=7&recursive=1", "")
	f.Add("POST", "dir=&%zz", "value=%")
	f.Fuzz(func(t *testing.T, method, query, body string) {
		r := httptest.NewRequest("PUT", "/v2/keys/a", strings.NewReader(body))
		r.Method, r.URL.RawQuery = method, query
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		q, bad := parse(r)
		if bad != nil {
			if meaning[bad.Code].message != bad.Message || bad.status < 400 || bad.Index != 0 {
				t.Errorf("%+v", bad)
			}
			return
		}
		if q.refresh && (q.ttl == nil || q.value != "") || q.wait && method != http.MethodGet {
			t.Errorf("%+v", q)
		}
		if _, ok := map[string]bool{actSet: true, actCreate: true, actUpdate: true, actSwap: true, actDelete: true, actDrop: true}[q.action()]; !ok {
			t.Errorf("action %q", q.action())
		}
		q.expires(time.Unix(1e9, 0))
	})
}

// FuzzPath gives anything as a key in a URL: what comes out is a clean name, whose v3 keys lead back to it.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "//a//", "/a/./b/..", "/\x00v2/last", "/_h/é\xff", "/a/b/c/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p := clean(s)
		if clean(p) != p || p[0] != '/' || tidy(tidy(s)) != tidy(s) {
			t.Fatalf("%q becomes %q", s, p)
		}
		if p == "/" {
			return
		}
		for _, key := range []string{p, dirKey(p)} {
			back, marker, ok := nodeOf(key)
			if back != p || !ok || marker != (key != p) || key < "/" || key >= sideEnd {
				t.Errorf("%q becomes %q, %v, %v", key, back, marker, ok)
			}
		}
		if below(p) >= pastDir(p) || dirKey(p) >= below(p) {
			t.Errorf("the range of %q is empty", p)
		}
		for _, d := range above(p) {
			if !strings.HasPrefix(p, dirKey(d)) || clean(d) != d {
				t.Errorf("%q is not above %q", d, p)
			}
			hidden(d, p)
		}
	})
}

// FuzzForm gives any values to the fields that are understood.
func FuzzForm(f *testing.F) {
	f.Add("5", "true", "7", "x", "false")
	f.Add("-1", "", "18446744073709551616", "", "T")
	f.Fuzz(func(t *testing.T, ttl, truth, index, value, exist string) {
		form := url.Values{"ttl": {ttl}, "recursive": {truth}, "prevIndex": {index}, "waitIndex": {index}, "prevValue": {value}, "prevExist": {exist}, "value": {value}}
		q, bad := parseForm(request{method: http.MethodPut, key: "/a"}, form)
		if bad == nil && (q.prevValue == "" || q.prevExist == nil) {
			t.Errorf("%+v", q)
		}
	})
}

// FuzzSide gives anything as the side keys' values, which v3 clients can write: events come out or not, never a panic.
func FuzzSide(f *testing.F) {
	f.Add("/a", []byte(`{"action":"set","key":"/a"}`), []byte(`{"created":5,"expires":9}`), true)
	f.Add("/a/", []byte(`{"action":"expire","key":"/a","created":2}`), []byte(`{"expires":-9223372036854775808}`), false)
	f.Add("/", []byte(`{"action":"delete","key":""}`), []byte(`null`), false)
	f.Fuzz(func(t *testing.T, key string, last, side []byte, put bool) {
		kv := func(k string, v []byte) *mvccpb.KeyValue {
			return &mvccpb.KeyValue{Key: []byte(k), Value: v, ModRevision: 7, CreateRevision: 3}
		}
		c := changes{key: {old: kv(key, side)}, sideDetail + key: {old: kv(sideDetail+key, side)}, sideLast: {now: kv(sideLast, last)}}
		if put {
			c[key] = change{now: kv(key, side), old: kv(key, side)}
		}
		w := newWindow(10)
		w.begin(1)
		events := eventsOf(8, c, time.Unix(5, 0))
		w.add(8, events)
		for _, ev := range events {
			if ev.Node == nil {
				t.Errorf("%+v", ev)
			}
		}
		_, _ = w.watch(clean(key), true, true, 1, 8)
	})
}
