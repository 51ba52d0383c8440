// Reconfigure is a small web service that changes its colour and message while it runs, on every machine at once, when somebody changes a key:
//
//	flota key put /reconfigure/color teal
//
// It needs nothing but the standard library: it reads its keys from the etcd v2 API that Flota serves on each machine, and waits there for the
// next change (a long poll). When the keys cannot be reached it goes on with what it knew last.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"html/template"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// config is what can be changed while the service runs.
type config struct {
	Color   string
	Message string
	Index   int64 // of the keys, when this was read; it grows with each change
}

// defaults are used for keys that are not set.
var defaults = config{Color: "gray", Message: "Hello; set /reconfigure/message to change this"}

// service serves pages that look as config says.
type service struct {
	name string
	now  atomic.Pointer[config]
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8100", "address to serve HTTP on")
	keys := flag.String("keys", cmp.Or(os.Getenv("FLOTA_KEYS"), "127.0.0.1:2379"), "HOST:PORT of this machine's keys; of several the first that answers is used [FLOTA_KEYS]")
	dir := flag.String("dir", "/reconfigure", "the keys color and message below this one are the configuration")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	s := &service{name: cmp.Or(os.Getenv("FLOTA_MACHINE"), "this machine")}
	first := defaults
	s.now.Store(&first)
	go follow(ctx, strings.Split(*keys, ","), *dir, func(c config) {
		s.now.Store(&c)
		log.Printf("reconfigured at index %d: color %q, message %q", c.Index, c.Color, c.Message)
	})

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.page)
	srv := &http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10}
	go func() {
		<-ctx.Done()
		wait, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = srv.Shutdown(wait)
	}()
	log.Printf("serving http://%s", *listen)
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

// html is the page for browsers; they ask again every second.
var html = template.Must(template.New("page").Parse(`<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="1">
<title>reconfigure</title><body style="background: {{.Color}}; font: 2em sans-serif; padding: 2em"><p>{{.Message}}</p><small>{{.Machine}}, index {{.Index}}</small>
`))

// page answers GET / as the configuration of this moment says.
func (s *service) page(w http.ResponseWriter, r *http.Request) {
	c := s.now.Load()
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		_ = html.Execute(w, struct {
			config
			Machine string
		}{*c, s.name})
		return
	}
	fmt.Fprintf(w, "%s: %s (%s)\n", s.name, c.Message, c.Color)
}

// pause is how long to wait before the keys are asked again after they could not be.
const pause = time.Second

// follow calls use with the configuration and with each later one, until ctx ends. The pattern is: read everything, remember the index of the
// answer, wait for any change after it, read everything again. No change is missed between reading and waiting, several changes at
// once come as one, and after any trouble, such as a history that is gone, it only has to begin again.
func follow(ctx context.Context, keys []string, dir string, use func(config)) {
	last, told := config{Index: -1}, false
	for i := 0; ctx.Err() == nil; {
		base := "http://" + keys[i%len(keys)] + "/v2/keys" + path.Clean("/"+dir)
		c, err := read(ctx, base)
		if err == nil {
			if c.Color != last.Color || c.Message != last.Message {
				use(c)
			}
			last, told = c, false
			err = wait(ctx, base, c.Index+1)
		}
		if err != nil && ctx.Err() == nil {
			if !told {
				log.Printf("the keys cannot be followed, going on with what is known: %v", err)
				told = true
			}
			i++
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	}
}

// node is a key, or a directory with the keys in it, as the v2 API tells it.
type node struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	Nodes []node `json:"nodes"`
}

// short bounds a plain question. Waiting has no bound but that of the connection.
const short = 5 * time.Second

// read gives the configuration as it is now. Nothing there is the defaults.
func read(ctx context.Context, base string) (config, error) {
	ctx, cancel := context.WithTimeout(ctx, short)
	defer cancel()
	status, index, body, err := get(ctx, base+"?quorum=true")
	if err != nil {
		return config{}, err
	}
	c := defaults
	c.Index = index
	switch status {
	case http.StatusNotFound:
		return c, nil
	case http.StatusOK:
	default:
		return c, fmt.Errorf("HTTP %d: %.200s", status, body)
	}
	var answer struct {
		Node node `json:"node"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return c, err
	}
	for _, n := range answer.Node.Nodes {
		switch path.Base(n.Key) {
		case "color":
			c.Color = n.Value
		case "message":
			c.Message = n.Value
		}
	}
	return c, nil
}

// wait returns when something below has changed at the index or after it; nil also when that is too long ago to be told.
func wait(ctx context.Context, base string, index int64) error {
	status, _, body, err := get(ctx, base+"?wait=true&recursive=true&waitIndex="+strconv.FormatInt(index, 10))
	if err != nil {
		return err
	}
	if status == http.StatusOK || status == http.StatusBadRequest && strings.Contains(string(body), `"errorCode":401`) {
		return nil // an empty body says that the wait was cut short, which reading again finds out
	}
	return fmt.Errorf("HTTP %d: %.200s", status, body)
}

// client notices a front that is gone by itself: a long poll may wait for days.
var client = http.Client{Transport: &http.Transport{
	DialContext: (&net.Dialer{Timeout: 2 * time.Second, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: time.Second, Count: 3}}).DialContext,
}}

// get asks, and gives the status, the index of the keys and the body.
func get(ctx context.Context, url string) (status int, index int64, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, 0, nil, err
	}
	if token := os.Getenv("KEYS_TOKEN"); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, 0, nil, err
	}
	defer resp.Body.Close()
	index, _ = strconv.ParseInt(resp.Header.Get("X-Etcd-Index"), 10, 64) // 0: wait for what comes next
	body, err = io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	return resp.StatusCode, index, body, err
}
