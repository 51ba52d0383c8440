package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/mem"
)

// Root on any machine gets a copy: a machine that has none asks a voter, and what breaks off there breaks off here.
func TestBackupOverTheWire(t *testing.T) {
	h := newHouse(t)
	h.join(2, h.token(1), h.rooms[0].addr)
	voter, client := h.rooms[0].srv, h.rooms[1].srv
	whole := strings.Repeat("copy", 1<<16)
	var asked []string
	sends := func(text string, end error) func(context.Context, io.Writer) error {
		return func(_ context.Context, w io.Writer) error {
			_, err := io.WriteString(w, text)
			return errors.Join(err, end)
		}
	}
	has := func(err error) func(context.Context, io.Writer) error {
		return func(context.Context, io.Writer) error { asked = append(asked, "m2"); return err }
	}
	noKey, noVoter := fault.New(fault.NotFound, "no key"), fault.WithHint(fault.New(fault.Unavailable, "m2 holds no copy"), "ask a voter")
	for name, c := range map[string]struct {
		at          int
		here, there func(context.Context, io.Writer) error
		kind        fault.Kind // of the error if words are set
		words       string     // "" for a whole copy
	}{
		"a voter's own":             {1, nil, sends(whole, nil), "", ""},
		"a client":                  {2, has(noKey), sends(whole, nil), "", ""},
		"a learner":                 {2, has(noVoter), sends(whole, nil), "", ""},
		"nothing to copy with":      {2, nil, sends(whole, nil), "", ""},
		"a full disk is told":       {2, has(fault.New(fault.Invalid, "disk full")), sends(whole, nil), fault.Invalid, "disk full"},
		"broken off by a voter":     {1, nil, sends(whole, errors.New("the disk broke")), fault.Unavailable, "read the backup"},
		"broken off when passed on": {2, has(noKey), sends(whole, errors.New("the disk broke")), fault.Unavailable, "read the backup"},
		"no voter can":              {2, has(noKey), sends("", noVoter), fault.Unavailable, "machine m1 does not answer"},
		"a voter's error":           {2, has(noKey), sends("", fault.New(fault.Conflict, "not now")), fault.Conflict, "not now"},
	} {
		voter.Backup, client.Backup, asked = c.there, c.here, nil
		var got bytes.Buffer
		err := h.socket(c.at).Backup(t.Context(), &got)
		if c.words == "" && (err != nil || got.String() != whole) {
			t.Errorf("%s: %d bytes, %v", name, got.Len(), err)
		}
		if c.words != "" && (!fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.words)) {
			t.Errorf("%s: %v", name, err)
		}
		if len(asked) > 1 {
			t.Errorf("%s: asked %q", name, asked)
		}
	}
	client.Backup = has(noVoter)
	asked = nil
	h.join(3, h.token(1), h.rooms[0].addr)
	w := ask(client.Handler(Machines), "GET", "/v1/backup", "", forwardedHeader, "m3", rootHeader, "true")
	if w.Code != http.StatusServiceUnavailable || len(asked) != 1 {
		t.Errorf("a request is passed on twice: %d %s", w.Code, w.Body)
	}
	client.External = true
	if code, text := h.root(2, "GET", "/v1/backup", ""); code != http.StatusServiceUnavailable || !strings.Contains(text, "ask a voter") {
		t.Errorf("a store of the user's own: %d %s", code, text)
	}
}

// The schedule is set at any machine by root, and nothing else of the cluster's record changes with it.
func TestBackupSchedule(t *testing.T) {
	h := newHouse(t)
	h.join(2, h.token(1), h.rooms[0].addr)
	ctx := t.Context()
	before, _, err := h.st.Cluster.Get(ctx, store.ThisCluster, store.Read{})
	if err != nil {
		t.Fatal(err)
	}
	one, two := h.socket(1), h.socket(2)
	if b, err := one.BackupSchedule(ctx); err != nil || b.Every != 0 || b.Keep != 0 || b.Recipients != nil {
		t.Errorf("the default: %+v, %v", b, err)
	}
	for _, want := range []machine.Backup{
		{Every: 6 * time.Hour, Keep: 8, Recipients: []string{"age1qqqq", "age1pq1zz"}}, {Every: -1}, {Every: time.Minute, Keep: maxKeep}, {}} {
		for range 2 { // the second time nothing changes
			if got, err := two.SetBackupSchedule(ctx, want); err != nil || !cmp.Equal(got, want) {
				t.Errorf("%+v, %v", got, err)
			}
		}
		if got, err := one.BackupSchedule(ctx); err != nil || !cmp.Equal(got, want) {
			t.Errorf("read: %+v, %v", got, err)
		}
	}
	after, _, err := h.st.Cluster.Get(ctx, store.ThisCluster, store.Read{})
	if err != nil || !cmp.Equal(before.Value, after.Value) {
		t.Errorf("%+v, %v", after, err)
	}
	secret := "AGE-SECRET-KEY-1XYZ"
	for name, b := range map[string]machine.Backup{
		"too often": {Every: 59 * time.Second}, "keep -1": {Keep: -1}, "keep too many": {Keep: maxKeep + 1}, "many recipients": {Recipients: make([]string, maxRecipients+1)},
		"a secret": {Recipients: []string{"age1qqqq", secret}}, "two lines": {Recipients: []string{"age1q\nage1q"}}, "none": {Recipients: []string{""}},
		"long": {Recipients: []string{"age1" + strings.Repeat("q", maxRecipient)}},
	} {
		if _, err := one.SetBackupSchedule(ctx, b); !fault.Is(err, fault.Invalid) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := h.client(2, h.rooms[0].addr).SetBackupSchedule(ctx, machine.Backup{}); !fault.Is(err, fault.Denied) {
		t.Errorf("a machine that is not root: %v", err)
	}
	passed := []string{forwardedHeader, "m2", rootHeader, "true"}
	if w := ask(h.rooms[0].srv.Handler(Machines), "GET", "/v1/backup/schedule", "", passed...); w.Code != http.StatusOK {
		t.Errorf("root through another machine: %d %s", w.Code, w.Body)
	}
	h.rooms[0].srv.External = true
	if _, err := one.BackupSchedule(ctx); !fault.Is(err, fault.Unavailable) || fault.Hint(err) == "" {
		t.Errorf("a store of the user's own: %v", err)
	}
	if _, err := one.SetBackupSchedule(ctx, machine.Backup{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a store of the user's own: %v", err)
	}
}

// Before the first machine has written the cluster's record, and without a quorum, a schedule is not set.
func TestBackupScheduleThatCannotBeSet(t *testing.T) {
	r := newRig(t, 1)
	local := r.boxes[0].srv.Handler(Local)
	for _, method := range []string{"GET", "PUT"} {
		if w := ask(local, method, "/v1/backup/schedule", "{}"); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d %s", method, w.Code, w.Body)
		}
	}
	r.boxes[0].kv.Cut(mem.NoQuorum)
	if w := ask(local, "PUT", "/v1/backup/schedule", "{}"); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "nothing was changed") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
