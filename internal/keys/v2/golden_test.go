package v2

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// recorded is one request to etcd 3.4.23 and its answer.
type recorded struct {
	Seq     int
	Name    string
	Setup   []string
	Curl    string
	During  []string
	Status  int
	Headers map[string]string
	Body    string
}

// otherwise are the records that are answered differently on purpose; doc/differences.md says why.
var otherwise = map[string]func(status int, body string) bool{
	"version": func(status int, body string) bool {
		return status == 200 && regexp.MustCompile(`^\{"etcdserver":"3\.\d+\.\d+","etcdcluster":"3\.\d+\.0"`).MatchString(body)
	},
	"members-post-badct": func(status int, _ string) bool { return status == 403 },
	"stats-self": func(status int, body string) bool {
		return status == 200 && strings.Contains(body, `"leaderInfo":{"leader":"946a60da48096010"`)
	},
	"stats-leader": func(status int, _ string) bool { return status == 403 },
	"stats-store":  func(status int, body string) bool { return status == 200 && strings.Contains(body, `"getsSuccess"`) },
	"big-2MB":      func(status int, body string) bool { return status == 413 && strings.Contains(body, `"errorCode":210`) },
}

// TestGolden runs what was recorded, with curl, in order, on a fresh store.
func TestGolden(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	b := newBed(t, nil)
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/big", append([]byte("value="), bytes.Repeat([]byte("x"), 2<<20)...), 0o600); err != nil {
		t.Fatal(err)
	}
	// etcd wrote three times of its own before the first request; other clients wrote before number 121.
	b.skip(t, 2)
	file, err := os.Open("testdata/golden.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r recorded
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		b.replay(t, dir, r)
	}
	if lines.Err() != nil {
		t.Fatal(lines.Err())
	}
}

// skip lets n revisions pass.
func (b *bed) skip(t *testing.T, n int) {
	for range n {
		if _, err := b.raw.Put(t.Context(), "elsewhere", ""); err != nil {
			t.Fatal(err)
		}
	}
}

func (b *bed) sh(t *testing.T, dir, command string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", strings.ReplaceAll(command, "http://127.7.9.1:2379", b.url))
	cmd.Dir = dir
	out, _ := cmd.Output() // curl's own time limit is an error that is expected
	return out
}

// replay runs one record and compares.
func (b *bed) replay(t *testing.T, dir string, r recorded) {
	t.Helper()
	switch r.Name { // what happened between the records
	case "watch-next": // two TTLs had run out: /queue/…29 of 20 s and /td of 40 s
		b.sh(t, dir, "curl -s -XDELETE http://127.7.9.1:2379/v2/keys/queue/00000000000000000029")
		b.sh(t, dir, "curl -s -XDELETE 'http://127.7.9.1:2379/v2/keys/td?recursive=true'")
	case "watch-history-cleared":
		r.Setup = []string{`i=0; while [ $i -lt 1010 ]; do printf 'url = "http://127.7.9.1:2379/v2/keys/hist"\nrequest = PUT\ndata = "value=%d"\nnext\n' $i; i=$((i+1)); done | curl -s -o /dev/null -K -`}
	case "dir-with-value":
		r.Setup = nil
		b.sh(t, dir, "curl -s -XDELETE http://127.7.9.1:2379/v2/keys/rf")
		b.skip(t, 18)
	}
	for _, s := range r.Setup {
		b.sh(t, dir, s)
	}
	command := strings.Replace(r.Curl, "curl -s", "curl -s -i --max-time 5", 1)
	var out []byte
	if len(r.During) > 0 {
		command = strings.Replace(command, "--max-time 5", "--max-time 1.5", 1)
		before, done := b.api.window.watching(), make(chan []byte)
		go func() { done <- b.sh(t, dir, command) }()
		for b.api.window.watching() == before {
			time.Sleep(time.Millisecond)
		}
		for _, d := range r.During {
			b.sh(t, dir, d)
		}
		out = <-done
	} else {
		out = b.sh(t, dir, command)
	}
	method := http.MethodGet
	if strings.Contains(r.Curl, " -I ") {
		method = http.MethodHead
	}
	in := bufio.NewReader(bytes.NewReader(out))
	resp, err := http.ReadResponse(in, &http.Request{Method: method})
	for err == nil && resp.StatusCode == 100 {
		resp, err = http.ReadResponse(in, &http.Request{Method: method})
	}
	if err != nil {
		t.Fatalf("%d %s: %v in %q", r.Seq, r.Name, err, out)
	}
	resp.TransferEncoding = nil
	body := string(out[bytes.LastIndex(out, []byte("\r\n\r\n"))+4:])
	if f := otherwise[r.Name]; f != nil {
		if !f(resp.StatusCode, body) {
			t.Errorf("%d %s: %d %s", r.Seq, r.Name, resp.StatusCode, body)
		}
		return
	}
	want := strings.ReplaceAll(r.Body, "http://127.7.9.1:2379", b.url)
	if resp.StatusCode != r.Status || masked(body) != masked(want) {
		t.Errorf("%d %s: %s\n got %d %s\nwant %d %s", r.Seq, r.Name, r.Curl, resp.StatusCode, masked(body), r.Status, masked(want))
	}
	for name, v := range r.Headers {
		switch got := resp.Header.Get(name); name {
		case "X-Etcd-Cluster-Id", "X-Raft-Index", "X-Raft-Term":
			if got == "" {
				t.Errorf("%d %s: no header %s", r.Seq, r.Name, name)
			}
		case "Transfer-Encoding":
		default:
			if got != v {
				t.Errorf("%d %s: header %s is %q, want %q", r.Seq, r.Name, name, got, v)
			}
		}
	}
	_, _ = io.Copy(io.Discard, resp.Body)
}

var (
	expiration = regexp.MustCompile(`"expiration":"[^"]*"`)
	ttlLeft    = regexp.MustCompile(`"ttl":\d+`)
)

// masked hides times.
func masked(body string) string {
	return ttlLeft.ReplaceAllString(expiration.ReplaceAllString(body, `"expiration":"T"`), `"ttl":0`)
}
