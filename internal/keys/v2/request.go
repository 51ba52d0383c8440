package v2

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// prefix is where the keys begin in a URL.
const prefix = "/v2/keys"

// request is what a client asks for, understood but not yet looked at against the store.
type request struct {
	method    string
	key       string
	value     string
	prevValue string
	prevIndex uint64
	prevExist *bool   // nil: not said
	ttl       *uint64 // seconds; nil: none
	waitIndex uint64  // 0: the next event

	dir, recursive, sorted, quorum, wait, stream, refresh, noValue bool
}

// parse reads a request out of its query and form. The order of the checks decides which of several mistakes is named; it is etcd's.
func parse(r *http.Request) (request, *problem) {
	q := request{method: r.Method, key: clean(r.URL.Path[len(prefix):])}
	if err := r.ParseForm(); err != nil {
		var tooLarge *http.MaxBytesError
		switch {
		case errors.As(err, &tooLarge):
			return q, refuse(invalidForm, 0, "the request is larger than this server takes").with(http.StatusRequestEntityTooLarge)
		case errors.Is(err, io.ErrUnexpectedEOF):
			return q, refuse(invalidForm, 0, "unexpected EOF")
		}
		return q, refuse(invalidForm, 0, err.Error())
	}
	return parseForm(q, r.Form)
}

// parseForm is parse for what the query and the body together say.
func parseForm(q request, form url.Values) (_ request, bad *problem) {
	number := func(name string, c code) (n uint64) {
		if v, ok := form[name]; ok && bad == nil {
			var err error
			if n, err = strconv.ParseUint(v[0], 10, 64); err != nil {
				bad = refuse(c, 0, `invalid value for "`+name+`"`)
			}
		}
		return n
	}
	truth := func(name, shown string) (b bool) {
		if v, ok := form[name]; ok && bad == nil {
			var err error
			if b, err = strconv.ParseBool(v[0]); err != nil {
				bad = refuse(invalidField, 0, "invalid value for "+shown)
			}
		}
		return b
	}
	check := func(fails bool, c code, cause string) {
		if fails && bad == nil {
			bad = refuse(c, 0, cause)
		}
	}
	q.prevIndex, q.waitIndex = number("prevIndex", indexNaN), number("waitIndex", indexNaN)
	q.recursive, q.sorted = truth("recursive", `"recursive"`), truth("sorted", `"sorted"`)
	q.wait, q.dir = truth("wait", `"wait"`), truth("dir", `"dir"`)
	q.quorum, q.stream = truth("quorum", `"quorum"`), truth("stream", `"stream"`)
	check(q.wait && q.method != http.MethodGet, invalidField, `"wait" can only be used with GET requests`)
	q.prevValue = form.Get("prevValue")
	check(form.Has("prevValue") && q.prevValue == "", prevValueNeeded, `"prevValue" cannot be empty`)
	q.noValue = truth("noValueOnSuccess", `"noValueOnSuccess"`)
	if form.Get("ttl") != "" {
		n := number("ttl", ttlNaN)
		q.ttl = &n
	}
	if form.Has("prevExist") {
		b := truth("prevExist", "prevExist")
		q.prevExist = &b
	}
	q.value = form.Get("value")
	q.refresh = truth("refresh", "refresh")
	check(q.refresh && q.value != "", refreshValue, "A value was provided on a refresh")
	check(q.refresh && q.ttl == nil, refreshTTL, "No TTL value set")
	return q, bad
}

// expires gives when what is written now ends; zero: never. What 64 bits of nanoseconds do not hold wraps around, as it did in etcd: the year
// 2262 is followed by 1677.
func (q request) expires(now time.Time) time.Time {
	if q.ttl == nil {
		return time.Time{}
	}
	return time.Unix(0, now.Add(time.Duration(*q.ttl)*time.Second).UnixNano())
}

// action is what the request does to a node; POST creates.
func (q request) action() string {
	compares := q.prevIndex != 0 || q.prevValue != ""
	switch {
	case q.method == http.MethodDelete && compares:
		return actDrop
	case q.method == http.MethodDelete:
		return actDelete
	case q.method == http.MethodPost, q.prevExist != nil && !*q.prevExist:
		return actCreate
	case compares:
		return actSwap
	case q.prevExist != nil:
		return actUpdate
	}
	return actSet
}
