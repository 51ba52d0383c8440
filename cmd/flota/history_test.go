package main

import (
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// asked is an operation of a client on one thing: a register, a counter or a lock.
type asked struct {
	do    string // get, put, swap, add, hold or free
	thing string
	value string // that is written; of hold and free: who
	want  string // of swap: the value that it replaces
}

// answered is how it ended. The zero value: it is not known whether it was done.
type answered struct {
	known bool
	yes   bool   // of swap: it was done
	value string // of get, of a swap that was not done, and after add
}

// never is when operations end of which the end is not known.
const never = time.Duration(1 << 62)

// rules says what may happen to one thing, whose state is its value, or who holds it. What is not known to have been done may be done at the very
// end, when nobody sees it, so it needs no rule of its own.
var rules = porcupine.Model{
	Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
		by := map[string][]porcupine.Operation{}
		for _, o := range all {
			by[o.Input.(asked).thing] = append(by[o.Input.(asked).thing], o)
		}
		var out [][]porcupine.Operation
		for _, some := range by {
			out = append(out, some)
		}
		return out
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		now, in, out := state.(string), input.(asked), output.(answered)
		switch in.do {
		case "get":
			return out.value == now, now
		case "put":
			return true, in.value
		case "swap":
			if now == in.want {
				return out.yes || !out.known, in.value
			}
			return !out.known || !out.yes && out.value == now, now
		case "add":
			n, _ := strconv.Atoi(now) // "" is 0
			next := strconv.Itoa(n + 1)
			return !out.known || out.value == next, next
		case "hold":
			return now == "", in.value
		case "free":
			if now == in.value {
				return true, ""
			}
			return !out.known, now
		}
		return false, now
	},
}

// history is what clients did, and when. Safe for concurrent use.
type history struct {
	mu    sync.Mutex // guards the field below
	all   []porcupine.Operation
	began time.Time
}

// now is the time since the history began.
func (h *history) now() time.Duration { return time.Since(h.began) }

// add adds an operation.
func (h *history) add(client int, in asked, out answered, call, end time.Duration) {
	if !out.known {
		end = never
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, porcupine.Operation{ClientId: client, Input: in, Output: out, Call: int64(call), Return: int64(end)})
}

// enough says whether so much was done that a mistake would have had its chance.
func (h *history) enough() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	did := map[string]int{}
	for _, o := range h.all {
		if o.Output.(answered).known {
			did[o.Input.(asked).do]++
		}
	}
	return did["get"] >= 500 && did["put"] >= 200 && did["swap"] >= 50 && did["add"] >= 100 && did["hold"] >= 50
}

// checkWait bounds the search for an order that explains a history; it takes well below a second as a rule.
const checkWait = 30 * time.Second

// linearizable says whether there is an order of the operations that agrees with the clock and with the rules.
func linearizable(all []porcupine.Operation) porcupine.CheckResult {
	return porcupine.CheckOperationsTimeout(rules, all, checkWait)
}

// TestHistoryRules: the check finds what it is there to find, and lets pass what may happen.
func TestHistoryRules(t *testing.T) {
	known := func(v string) answered { return answered{known: true, value: v} }
	type step struct {
		in        asked
		out       answered
		call, end time.Duration
	}
	put := func(v string) asked { return asked{do: "put", thing: "r", value: v} }
	get := asked{do: "get", thing: "r"}
	swap := func(from, to string) asked { return asked{do: "swap", thing: "r", want: from, value: to} }
	add := asked{do: "add", thing: "n"}
	hold := func(who string) asked { return asked{do: "hold", thing: "l", value: who} }
	free := func(who string) asked { return asked{do: "free", thing: "l", value: who} }
	for name, x := range map[string]struct {
		steps []step
		want  porcupine.CheckResult
	}{
		"a read after a write": {[]step{{put("a"), known(""), 0, 1}, {get, known("a"), 2, 3}}, porcupine.Ok},
		"an old value":         {[]step{{put("a"), known(""), 0, 1}, {put("b"), known(""), 2, 3}, {get, known("a"), 4, 5}}, porcupine.Illegal},
		"an old value beside the write": {
			[]step{{put("a"), known(""), 0, 1}, {put("b"), known(""), 2, 5}, {get, known("a"), 3, 4}}, porcupine.Ok},
		"new, then old": {
			[]step{{put("a"), known(""), 0, 1}, {put("b"), known(""), 2, 9}, {get, known("b"), 3, 4}, {get, known("a"), 5, 6}}, porcupine.Illegal},
		"a write that was lost":         {[]step{{put("a"), known(""), 0, 1}, {get, known(""), 2, 3}}, porcupine.Illegal},
		"a failed write that was done":  {[]step{{put("a"), answered{}, 0, 0}, {get, known("a"), 2, 3}}, porcupine.Ok},
		"a failed write that was not":   {[]step{{put("a"), answered{}, 0, 0}, {get, known(""), 2, 3}}, porcupine.Ok},
		"a failed write that came late": {[]step{{put("a"), answered{}, 0, 0}, {get, known(""), 2, 3}, {get, known("a"), 4, 5}}, porcupine.Ok},
		"a failed write that came and went": {
			[]step{{put("a"), answered{}, 0, 0}, {get, known("a"), 2, 3}, {get, known(""), 4, 5}}, porcupine.Illegal},
		"two swaps of one value": {
			[]step{{put("a"), known(""), 0, 1}, {swap("a", "b"), answered{known: true, yes: true}, 2, 5}, {swap("a", "c"), answered{known: true, yes: true}, 3, 6}}, porcupine.Illegal},
		"a swap that was refused": {
			[]step{{put("a"), known(""), 0, 1}, {swap("x", "b"), known("a"), 2, 3}, {get, known("a"), 4, 5}}, porcupine.Ok},
		"a swap that was refused and done": {
			[]step{{put("a"), known(""), 0, 1}, {swap("a", "b"), known("a"), 2, 3}}, porcupine.Illegal},
		"two additions":       {[]step{{add, known("1"), 0, 3}, {add, known("2"), 1, 2}}, porcupine.Ok},
		"a lost addition":     {[]step{{add, known("1"), 0, 3}, {add, known("1"), 1, 2}}, porcupine.Illegal},
		"a failed addition":   {[]step{{add, answered{}, 0, 0}, {add, known("2"), 1, 2}}, porcupine.Ok},
		"one after the other": {[]step{{hold("x"), known(""), 0, 1}, {free("x"), known(""), 2, 4}, {hold("y"), known(""), 1, 5}}, porcupine.Ok},
		"two hold the lock":   {[]step{{hold("x"), known(""), 0, 1}, {hold("y"), known(""), 2, 3}, {free("x"), known(""), 4, 5}}, porcupine.Illegal},
		"a release that failed": {
			[]step{{hold("x"), known(""), 0, 1}, {free("x"), answered{}, 2, 0}, {hold("y"), known(""), 3, 4}}, porcupine.Ok},
		"held before the release that failed": {
			[]step{{hold("x"), known(""), 0, 1}, {hold("y"), known(""), 2, 3}, {free("x"), answered{}, 4, 0}}, porcupine.Illegal},
	} {
		h := &history{}
		for i, s := range x.steps {
			h.add(i, s.in, s.out, s.call, s.end)
		}
		if got := linearizable(h.all); got != x.want {
			t.Errorf("%s: %s, want %s", name, got, x.want)
		}
	}
}
