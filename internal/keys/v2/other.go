package v2

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/version"
)

// routes says what answers where.
func (a *API) routes() {
	a.mux = http.NewServeMux()
	a.mux.HandleFunc(prefix, a.keys)
	a.mux.HandleFunc(prefix+"/", a.keys)
	a.mux.HandleFunc("/v2/members", a.members)
	a.mux.HandleFunc("/v2/members/", a.members)
	for path, answer := range map[string]http.HandlerFunc{
		"/version":        a.version,
		"/health":         a.health,
		"/v2/machines":    a.machines,
		"/v2/stats/self":  a.statsSelf,
		"/v2/stats/store": a.statsStore,
		// The members' view of each other is the cluster's own matter; who asks gets the answer of a member that does not lead.
		"/v2/stats/leader": func(w http.ResponseWriter, _ *http.Request) {
			say(w, http.StatusForbidden, message{"not current leader"})
		},
		// Users and roles of version 2 do not exist: access is given by tokens.
		"/v2/auth/enable": func(w http.ResponseWriter, r *http.Request) { a.sayCluster(w, r, map[string]bool{"enabled": false}) },
		"/v2/auth/users":  func(w http.ResponseWriter, r *http.Request) { a.sayCluster(w, r, map[string][]string{"users": nil}) },
		"/v2/auth/roles":  func(w http.ResponseWriter, r *http.Request) { a.sayCluster(w, r, map[string][]string{"roles": nil}) },
	} {
		a.mux.HandleFunc(path, getOnly(answer))
	}
}

// message is an error outside of keys.
type message struct {
	Message string `json:"message"`
}

// getOnly refuses other methods.
func getOnly(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET")
			http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
			return
		}
		next(w, r)
	}
}

// say sends v as JSON.
func say(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "Internal Server Error", http.StatusInternalServerError)
		return
	}
	if _, short := v.(message); !short { // etcd ends its messages without a newline
		b = append(b, '\n')
	}
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

// sayCluster is say with the cluster's ID.
func (a *API) sayCluster(w http.ResponseWriter, r *http.Request, v any) {
	ctx, cancel := context.WithTimeout(r.Context(), a.o.Timeout)
	defer cancel()
	a.putCluster(ctx, w)
	say(w, http.StatusOK, v)
}

// version tells the version of the store, which clients choose by what they may ask.
func (a *API) version(w http.ResponseWriter, _ *http.Request) {
	say(w, http.StatusOK, version.Versions{Server: version.Version, Cluster: version.Cluster(version.Version) + ".0"})
}

// health asks the store for something that only a quorum can answer.
func (a *API) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), a.o.Timeout)
	defer cancel()
	status, text := http.StatusOK, `{"health":"true"}`
	if resp, err := a.kv.Get(ctx, sideLast); err != nil {
		status, text = http.StatusServiceUnavailable, `{"health":"false"}`
	} else {
		a.note(resp.Header)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}

// member is a Member as /v2/members tells it.
type member struct {
	ID         string   `json:"id"`
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
}

func shown(m Member) member {
	return member{
		ID: strconv.FormatUint(m.ID, 16), Name: m.Name,
		PeerURLs: append([]string{}, m.PeerURLs...), ClientURLs: append([]string{}, m.ClientURLs...),
	}
}

// members answers /v2/members and /v2/members/leader. Who belongs to the cluster is changed by its own commands only.
func (a *API) members(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), a.o.Timeout)
	defer cancel()
	a.putCluster(ctx, w)
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		say(w, http.StatusForbidden, message{"machines join and leave with flota's own commands"})
		return
	}
	all := a.o.Members(ctx)
	switch strings.Trim(strings.TrimPrefix(r.URL.Path, "/v2/members"), "/") {
	case "":
		list := make([]member, 0, len(all))
		for _, m := range all {
			list = append(list, shown(m))
		}
		say(w, http.StatusOK, map[string][]member{"members": list})
	case "leader":
		if i := slices.IndexFunc(all, func(m Member) bool { return m.Leader }); i >= 0 {
			say(w, http.StatusOK, shown(all[i]))
			return
		}
		say(w, http.StatusServiceUnavailable, message{"During election"})
	default:
		say(w, http.StatusNotFound, message{"Not found"})
	}
}

// machines tells where keys are served, as a line of text.
func (a *API) machines(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), a.o.Timeout)
	defer cancel()
	var urls []string
	for _, m := range a.o.Members(ctx) {
		urls = append(urls, m.ClientURLs...)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(strings.Join(urls, ", ")))
}

// statsSelf tells of this machine and of the leader, which python-etcd finds its members' leader by.
func (a *API) statsSelf(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), a.o.Timeout)
	defer cancel()
	type leader struct {
		Leader string    `json:"leader"`
		Uptime string    `json:"uptime"`
		Start  time.Time `json:"startTime"`
	}
	type self struct {
		Name   string    `json:"name"`
		ID     string    `json:"id"`
		State  string    `json:"state"`
		Start  time.Time `json:"startTime"`
		Leader leader    `json:"leaderInfo"`
		Recv   int       `json:"recvAppendRequestCnt"`
		Sent   int       `json:"sendAppendRequestCnt"`
	}
	s := self{State: "StateFollower", Start: a.began, Leader: leader{Uptime: time.Since(a.began).String(), Start: a.began}}
	for _, m := range a.o.Members(ctx) {
		id := strconv.FormatUint(m.ID, 16)
		if m.Self {
			s.Name, s.ID = m.Name, id
		}
		if m.Leader {
			s.Leader.Leader = id
		}
		if m.Self && m.Leader {
			s.State = "StateLeader"
		}
	}
	say(w, http.StatusOK, s)
}

// tally counts one action.
type tally struct{ good, bad atomic.Uint64 }

// stats counts what this machine was asked for since it began.
type stats struct {
	get, set, remove, update, create, swap, drop tally
	expired                                      atomic.Uint64 // removed by this machine
}

// count counts one request.
func (s *stats) count(action string, good bool) {
	t := map[string]*tally{
		actGet: &s.get, actSet: &s.set, actDelete: &s.remove, actUpdate: &s.update, actCreate: &s.create, actSwap: &s.swap, actDrop: &s.drop,
	}[action]
	if good {
		t.good.Add(1)
	} else {
		t.bad.Add(1)
	}
}

// statsStore tells the counters.
func (a *API) statsStore(w http.ResponseWriter, _ *http.Request) {
	s := &a.stats
	all := map[string]uint64{"expireCount": s.expired.Load(), "watchers": uint64(a.window.watching())}
	for name, t := range map[string]*tally{
		"gets": &s.get, "sets": &s.set, "delete": &s.remove, "update": &s.update, "create": &s.create, "compareAndSwap": &s.swap, "compareAndDelete": &s.drop,
	} {
		all[name+"Success"], all[name+"Fail"] = t.good.Load(), t.bad.Load()
	}
	say(w, http.StatusOK, all)
}
