package netbed

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// call is what is asked of a register: read it, write it, or swap it if it is what it should be.
type call struct {
	key, verb string // get, put, swap
	from, to  string
}

// answer is what came back. An unknown one may have taken effect or not, then or at any time later.
type answer struct {
	value   string // of a get
	swapped bool
	unknown bool
}

// register is a single register, by key: what the store's keys must look like to all clients together.
var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		by := map[string][]porcupine.Operation{}
		for _, op := range history {
			key := op.Input.(call).key
			by[key] = append(by[key], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range by {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		was, in, out := state.(string), input.(call), output.(answer)
		switch in.verb {
		case "get":
			return out.unknown || out.value == was, was
		case "put":
			return true, in.to
		}
		if out.unknown {
			out.swapped = was == in.from
		}
		if out.swapped {
			return was == in.from, in.to
		}
		return was != in.from, was
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

// judgeRegisters says whether a history can be that of single registers. Histories that take longer than a minute to think about pass, and
// that is told.
func judgeRegisters(history []porcupine.Operation) (note string, err error) {
	switch porcupine.CheckOperationsTimeout(register, history, time.Minute) {
	case porcupine.Illegal:
		return "", errors.New("the keys are not linearizable")
	case porcupine.Unknown:
		return "the history of keys is too hard to judge within a minute", nil
	}
	return "", nil
}

// clerks are applications, one on each machine, that read, write and swap a few keys, and remember all that was asked and answered.
type clerks struct {
	stop context.CancelFunc
	all  sync.WaitGroup

	mu      sync.Mutex // guards history
	history []porcupine.Operation
}

// clerks starts them on the machines.
func (b *bed) clerks(t *testing.T, machines []int) *clerks {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cs := &clerks{stop: cancel}
	for _, i := range machines {
		client := b.keysClient(t, i)
		cs.all.Go(func() {
			defer client.Close()
			cs.work(ctx, client, i)
		})
	}
	t.Cleanup(func() { cs.end() })
	return cs
}

// work asks ten times in a second, and after an unknown answer not for a second: each of them is open to the end of the history, and many
// make it hard to judge.
func (cs *clerks) work(ctx context.Context, client *clientv3.Client, id int) {
	seen := map[string]string{}
	for n := 0; ctx.Err() == nil; n++ {
		in := call{key: fmt.Sprintf("register/%d", rand.IntN(5)), verb: []string{"get", "get", "put", "swap"}[rand.IntN(4)], to: fmt.Sprintf("%d.%d", id, n)}
		in.from = seen[in.key]
		began := sinceBoot()
		out := ask(ctx, client, in)
		op := porcupine.Operation{ClientId: id, Input: in, Call: int64(began), Output: out, Return: int64(sinceBoot())}
		wait := 100 * time.Millisecond
		if out.unknown {
			op.Return, wait = math.MaxInt64, time.Second
		}
		switch {
		case in.verb == "get" && !out.unknown:
			seen[in.key] = out.value
		case in.verb == "put" || out.swapped:
			seen[in.key] = in.to
		}
		if in.verb != "get" || !out.unknown { // a read without an answer tells nothing
			cs.mu.Lock()
			cs.history = append(cs.history, op)
			cs.mu.Unlock()
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// ask does what a call says.
func ask(ctx context.Context, c *clientv3.Client, in call) answer {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	switch in.verb {
	case "get":
		got, err := c.Get(ctx, in.key)
		if err != nil {
			return answer{unknown: true}
		}
		value := ""
		if len(got.Kvs) > 0 {
			value = string(got.Kvs[0].Value)
		}
		return answer{value: value}
	case "put":
		_, err := c.Put(ctx, in.key, in.to)
		return answer{unknown: err != nil}
	}
	if in.from == "" {
		got, err := c.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(in.key), "=", 0)).Then(clientv3.OpPut(in.key, in.to)).Commit()
		return answer{unknown: err != nil, swapped: err == nil && got.Succeeded}
	}
	got, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Value(in.key), "=", in.from)).Then(clientv3.OpPut(in.key, in.to)).Commit()
	return answer{unknown: err != nil, swapped: err == nil && got.Succeeded}
}

// end stops the clerks and gives what they know.
func (cs *clerks) end() []porcupine.Operation {
	cs.stop()
	cs.all.Wait()
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.history
}

// judge ends the work and fails the test if no single store could have answered so.
func (cs *clerks) judge(t *testing.T) {
	t.Helper()
	history := cs.end()
	known := 0
	for _, op := range history {
		if !op.Output.(answer).unknown {
			known++
		}
	}
	if known < 20 {
		t.Errorf("%d answers from the keys: their history proves nothing", known)
	}
	note, err := judgeRegisters(history)
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d calls, %d with an answer. %s", len(history), known, note)
}

// TestRegisterJudge gives it histories.
func TestRegisterJudge(t *testing.T) {
	op := func(from, to int64, in call, out answer) porcupine.Operation {
		in.key = "k"
		return porcupine.Operation{ClientId: int(from), Input: in, Call: from, Output: out, Return: to}
	}
	put := func(v string) call { return call{verb: "put", to: v} }
	get := call{verb: "get"}
	swap := func(from, to string) call { return call{verb: "swap", from: from, to: to} }
	for _, c := range []struct {
		name    string
		history []porcupine.Operation
		good    bool
	}{
		{"read what was written", []porcupine.Operation{op(1, 2, put("a"), answer{}), op(3, 4, get, answer{value: "a"})}, true},
		{"an old read", []porcupine.Operation{op(1, 2, put("a"), answer{}), op(3, 4, put("b"), answer{}), op(5, 6, get, answer{value: "a"})}, false},
		{"a lost write", []porcupine.Operation{op(1, 2, put("a"), answer{}), op(3, 4, get, answer{})}, false},
		{"unknown and done", []porcupine.Operation{op(1, math.MaxInt64, put("a"), answer{unknown: true}), op(3, 4, get, answer{value: "a"})}, true},
		{"unknown and late", []porcupine.Operation{op(1, math.MaxInt64, put("a"), answer{unknown: true}), op(3, 4, get, answer{}), op(5, 6, get, answer{value: "a"})}, true},
		{"unknown, done and undone", []porcupine.Operation{op(1, math.MaxInt64, put("a"), answer{unknown: true}), op(3, 4, get, answer{value: "a"}), op(5, 6, get, answer{})}, false},
		{"swapped twice from one value", []porcupine.Operation{op(1, 5, swap("", "a"), answer{swapped: true}), op(2, 6, swap("", "b"), answer{swapped: true})}, false},
		{"swapped once", []porcupine.Operation{op(1, 5, swap("", "a"), answer{swapped: true}), op(2, 6, swap("", "b"), answer{})}, true},
	} {
		if _, err := judgeRegisters(c.history); (err == nil) != c.good {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
