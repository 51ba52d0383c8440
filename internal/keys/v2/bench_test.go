package v2

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// benchClients is how many clients ask at the same time: as many as the product's promise speaks of.
const benchClients = 100

// benchSlice is how many requests go to one side before it is the other's turn, so that both meet the same moods of the machine.
const benchSlice = 2000

// BenchmarkSideBySide asks the same of Debian's etcd 3.4 and of us, over HTTP, in turns: 100 clients on 1,000 keys with values of 256 bytes.
func BenchmarkSideBySide(b *testing.B) {
	ours := newBed(b, nil).url
	theirs := startOracle(b)
	c := browser(b)
	value := url.Values{"value": {strings.Repeat("x", 256)}}.Encode()
	for _, url := range []string{ours, theirs} {
		for i := range 1000 {
			mustDo(b, c, "PUT", fmt.Sprintf("%s/v2/keys/bench/%d", url, i), value)
		}
	}
	for _, k := range []struct{ name, method, query, body string }{
		{"get", "GET", "", ""},
		{"get-quorum", "GET", "?quorum=true", ""},
		{"set", "PUT", "", value},
		{"update", "PUT", "?prevExist=true", value},
		{"set-ttl", "PUT", "?ttl=600", value},
	} {
		b.Run(k.name, func(b *testing.B) {
			sides := []struct {
				url  string
				took time.Duration
			}{{url: theirs}, {url: ours}}
			for done := 0; done < b.N; done += benchSlice {
				for i := range sides {
					began := time.Now()
					slice(b, c, k.method, sides[i].url, k.query, k.body)
					sides[i].took += time.Since(began)
				}
			}
			n := float64((b.N + benchSlice - 1) / benchSlice * benchSlice)
			b.ReportMetric(n/sides[0].took.Seconds(), "etcd-3.4/s")
			b.ReportMetric(n/sides[1].took.Seconds(), "ours/s")
			b.ReportMetric(sides[0].took.Seconds()/sides[1].took.Seconds(), "ours:etcd")
		})
	}
}

// slice sends one slice of requests from all clients.
func slice(b *testing.B, c *http.Client, method, url, query, body string) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range benchClients {
		all.Go(func() {
			for i := next.Add(1); i <= benchSlice; i = next.Add(1) {
				mustDo(b, c, method, fmt.Sprintf("%s/v2/keys/bench/%d%s", url, i%1000, query), body)
			}
		})
	}
	all.Wait()
}

func mustDo(t testing.TB, c *http.Client, method, url, body string) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode >= 300 {
		t.Errorf("%s %s: %s, %v", method, url, resp.Status, err)
	}
}
