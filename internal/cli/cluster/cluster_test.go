package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"flota/internal/admit"
	"flota/internal/api"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/trust"
	"flota/internal/trust/token"
)

const (
	hash1 = "sha256:1111111122222222333333334444444455555555666666667777777788888888"
	hash2 = "sha256:aaaaaaaabbbbbbbbccccccccddddddddeeeeeeeeffffffff0000000099999999"
)

var moment = time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)

// sample is what a machine answers to token create.
func sample(note string) admit.Created {
	return admit.Created{
		Token: token.Token{ID: "0123456789", Uses: 1, Created: moment, Expires: moment.Add(time.Hour)},
		Text:  "flj_0123456789_ff", Join: []string{"10.0.0.1:7700", "10.0.0.2:7700"}, CAHash: hash1,
		Command: "flota up --join 10.0.0.1:7700,10.0.0.2:7700 --token flj_0123456789_ff --ca-hash " + hash1, Note: note,
	}
}

func TestTokenCreate(t *testing.T) {
	s := newServer(t)
	more := sample("this works on this host alone")
	more.Token.Uses, more.Token.Labels = 4, map[string]string{"zone": "a", "disk": "ssd"}
	s.answers("POST /v1/tokens", sample(""), more, more, fault.WithHint(fault.New(fault.Conflict, "there are too many"), "revoke some"))
	wants(t, s, `flota up --join 10.0.0.1:7700,10.0.0.2:7700 --token flj_0123456789_ff --ca-hash `+hash1+`
--
run this as root on one new machine, until 2031-02-03 05:05:06 UTC; it is shown only now:
`, "token", "create")
	wants(t, s, `flota up --join 10.0.0.1:7700,10.0.0.2:7700 --token flj_0123456789_ff --ca-hash `+hash1+`
--
run this as root on up to 4 new machines, until 2031-02-03 05:05:06 UTC, labelled disk=ssd,zone=a; it is shown only now:
this works on this host alone
`, "token", "create", "--ttl", "2d", "--uses", "4", "--label", "zone=a,disk=ssd")
	wants(t, s, `{
  "id": "0123456789",
  "token": "flj_0123456789_ff",
  "caHash": "`+hash1+`",
  "join": [
    "10.0.0.1:7700",
    "10.0.0.2:7700"
  ],
  "command": "flota up --join 10.0.0.1:7700,10.0.0.2:7700 --token flj_0123456789_ff --ca-hash `+hash1+`",
  "expires": "2031-02-03T05:05:06Z",
  "uses": 4,
  "labels": {
    "disk": "ssd",
    "zone": "a"
  },
  "note": "this works on this host alone"
}
`, "token", "create", "--json", "--label", "zone=a", "--label", "disk=ssd")
	(&world{s: s}).fails(t, fault.Conflict, "revoke some", "token", "create")
	s.was(`POST /v1/tokens {"ttl":3600000000000,"uses":1}`, `POST /v1/tokens {"ttl":172800000000000,"uses":4,"labels":{"disk":"ssd","zone":"a"}}`,
		`POST /v1/tokens {"ttl":3600000000000,"uses":1,"labels":{"disk":"ssd","zone":"a"}}`, `POST /v1/tokens {"ttl":3600000000000,"uses":1}`)
}

func TestTokenListAndRevoke(t *testing.T) {
	s := newServer(t)
	now := time.Now()
	all := []token.Token{
		{ID: "0000000001", Uses: 2, Used: []string{"x"}, Created: now.Add(-time.Minute), Expires: now.Add(59 * time.Minute), Labels: map[string]string{"a": "b"}},
		{ID: "0000000002", Uses: 0, Used: []string{"x", "y"}, Created: now.Add(-2 * time.Hour), Expires: now.Add(time.Hour)},
		{ID: "0000000003", Uses: 1, Created: now.Add(-3 * time.Hour), Expires: now.Add(-2 * time.Hour)},
	}
	s.answers("GET /v1/tokens", api.List[token.Token]{Items: all}, api.List[token.Token]{Items: all}, api.List[token.Token]{})
	s.answers("DELETE /v1/tokens/{id}", struct{}{})
	wants(t, s, `ID          USED    CREATED   STATE             LABELS
0000000001  1 of 3  1min ago  expires in 59min  a=b
0000000002  2 of 2  2h ago    used up           -
0000000003  0 of 1  3h ago    expired 2h ago    -
`, "token", "list")
	wants(t, s, "0000000002\tused up\n0000000003\texpired 2h ago\n:4\n--\nCompletion ended with directive: ShellCompDirectiveNoFileComp\n",
		"__complete", "token", "revoke", "0000000001", "")
	wants(t, s, "[]\n", "token", "list", "--json")
	_, text := token.Make([token.IDBytes]byte{1, 2, 3, 4, 5}, [token.SecretBytes]byte{6})
	wants(t, s, "--\n0000000001: revoked\n0102030405: revoked\n", "token", "revoke", "0000000001", text) // the secret is neither sent nor shown
	s.was("GET /v1/tokens", "GET /v1/tokens", "GET /v1/tokens", "DELETE /v1/tokens/0000000001", "DELETE /v1/tokens/0102030405")
}

func TestBadWords(t *testing.T) {
	for _, c := range []struct {
		kind  fault.Kind
		words string
		args  string
	}{
		{fault.Invalid, "--uses 0: want a number", "token create --uses 0"},
		{fault.Invalid, "want a time above 0", "token create --ttl 0"},
		{fault.Invalid, "want key=value", "token create --label nolabel"},
		{fault.Invalid, "want key=value", "token create --label a=b,,"},
		{fault.Internal, "at least 1 arg", "token revoke"}, // cli makes wrong usage Invalid
		{fault.Internal, "at least 1 arg", "machine remove"},
		{fault.Internal, "accepts 1 arg", "backup"},
		{fault.Unavailable, "no cluster here", "trust show"},
		{fault.Invalid, "--yes does it without asking", "leave"},
		{fault.Invalid, "--yes does it without asking", "recover"},
		{fault.Unavailable, "no cluster here", "leave --yes"},
		{fault.Invalid, "--passphrase-file FILE, or --recipient age1…", "backup f"},
		{fault.Invalid, "want one of --passphrase-file, --recipient and --plain", "backup f --plain --recipient age1x"},
		{fault.Invalid, "is no age recipient", "backup f --recipient age1x"},
		{fault.Invalid, "is no age recipient", "backup schedule --recipient age1x"},
		{fault.Invalid, "is no age recipient", "backup schedule --recipient="},
		{fault.Invalid, "want one of --recipient and --plain", "backup schedule --plain --recipient age1x"},
		{fault.Invalid, "--every never keeps no further ones", "backup schedule --keep 0"},
		{fault.Invalid, "want a time above 0, such as 6h, or never", "backup schedule --every 0"},
		{fault.Invalid, "is not a time span", "backup schedule --every often"},
		{fault.Internal, "unknown command", "backup schedule now"},
		{fault.Unavailable, "no cluster here", "backup schedule"},
		{fault.Invalid, "/dev/null is there and is no file", "backup /dev/null --plain"},
		{fault.NotFound, "read the passphrase: open", "backup f --passphrase-file /nowhere/x"},
		{fault.NotFound, "read the backup: open", "backup verify /nowhere/x"},
		{fault.Invalid, "is a directory", "backup verify /"},
		{fault.Invalid, "no backup of flota", "backup inspect /etc/passwd"},
		{fault.Invalid, "want 1-63 of a-z", "restore f --name A_B"},
		{fault.Invalid, `--addr "here": want an IP address`, "restore f --name m1 --addr here"},
		{fault.Invalid, "want the one address", "restore f --name m1 --addr 0.0.0.0"},
		{fault.NotFound, "read the backup: open f", "restore f --name m1 --addr 10.0.0.1"},
	} {
		(&world{}).fails(t, c.kind, c.words, strings.Fields(c.args)...)
	}
}

func TestMachineRemove(t *testing.T) {
	s := newServer(t)
	s.tells("POST /v1/machines/m2/remove", nil, false, "m2: waits for 1 unit to move: web.service", "m2: removed")
	s.tells("POST /v1/machines/m3/remove", fault.WithHint(fault.New(fault.Conflict, "remove m3: one of two voters would be left"), "add a machine first"), false)
	s.tells("POST /v1/machines/m4/remove", nil, true, "m4: waits for its vote to move")
	wants(t, s, "--\nm2: waits for 1 unit to move: web.service\nm2: removed\n", "machine", "remove", "m2", "--reason", "too old", "--force")
	wants(t, s, `{"text":"m2: waits for 1 unit to move: web.service"}`+"\n"+`{"text":"m2: removed"}`+"\n", "machine", "remove", "m2", "--json")
	(&world{s: s}).fails(t, fault.Conflict, "add a machine first", "machine", "remove", "m3", "m2") // which is not removed then
	w := &world{s: s}
	err := interrupt(t, w, "vote to move", "machine", "remove", "m4")
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	has(t, w.errs.String(), "interrupted: m4 stays drained and leaving; the same command goes on with it, and flota machine resume m4 takes it back")
	s.was(`POST /v1/machines/m2/remove {"force":true,"reason":"too old"}`, `POST /v1/machines/m2/remove {}`, `POST /v1/machines/m3/remove {}`, `POST /v1/machines/m4/remove {}`)
}

// interrupt runs a command and interrupts it when it has said words.
func interrupt(t *testing.T, w *world, words string, args ...string) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- w.run(ctx, args...) }()
	await(t, words, func() bool { return strings.Contains(w.errs.String(), words) })
	cancel()
	return <-ended
}

// status is a cluster of two machines; m1 answers.
func status(quorum bool) api.Status {
	there := &machine.Presence{}
	return api.Status{Answered: "m1", Store: store.Health{Quorum: quorum}, Machines: []api.Machine{
		{Machine: machine.Machine{Name: "m1"}, Presence: there, Units: 3}, {Machine: machine.Machine{Name: "m2"}, Presence: there}}}
}

func TestLeave(t *testing.T) {
	s := newServer(t)
	s.answers("GET /v1/status", status(true))
	s.tells("POST /v1/leave", nil, false, "m1: left the cluster")
	end := "to use this machine again move its data directory away, and join with what flota token create prints on another machine\n"
	wants(t, s, "--\nm1: left the cluster\n"+end, "leave", "--yes")
	s.was("GET /v1/status", "POST /v1/leave {}")
	ask := "Its 3 units start on other machines first.\nIts certificate stops working: it can come back only as a new machine.\nTake m1 out of the cluster? [y/N] "
	w := &world{s: s}
	if err := w.types(t, map[string]string{"[y/N] ": "no"}, "leave"); !errors.Is(err, exited(1)) {
		t.Error(err)
	}
	if want := "--\n" + ask + "nothing was changed\n"; w.screen() != want {
		t.Errorf("%q, want %q", w.screen(), want)
	}
	s.was("GET /v1/status", "POST /v1/leave {}", "GET /v1/status")
	w = &world{s: s}
	if err := w.types(t, map[string]string{"[y/N] ": "Yes"}, "leave", "--force"); err != nil {
		t.Error(err)
	}
	has(t, w.screen(), "--force does not wait until its 3 units run elsewhere.", "[y/N] m1: left the cluster\n"+end)
	s.was("GET /v1/status", "POST /v1/leave {}", "GET /v1/status", "GET /v1/status", `POST /v1/leave {"force":true}`)
}

// Ctrl-C at a question ends the command, with the terminal as it was.
func TestInterruptedQuestions(t *testing.T) {
	s := newServer(t)
	s.answers("GET /v1/status", status(true))
	for prompt, args := range map[string][]string{"[y/N] ": {"leave"}, "Passphrase for the backup: ": {"backup", "f"}} {
		person, program := terminal(t)
		w := &world{s: s, in: program}
		if err := interrupt(t, w, prompt, args...); !errors.Is(err, context.Canceled) {
			t.Errorf("%v: %v", args, err)
		}
		_ = person.Close() // ends the reading
		if strings.Contains(w.errs.String(), "interrupted") {
			t.Errorf("%v: nothing was begun:\n%s", args, w.errs.String())
		}
	}
}

func TestRecover(t *testing.T) {
	s := newServer(t)
	s.answers("GET /v1/status", status(true), status(false), status(false), status(true))
	s.tells("POST /v1/recover", nil, false, "m1: it holds the store alone now")
	(&world{s: s}).fails(t, fault.Conflict, "there is nothing to recover", "recover", "--yes")
	end := "m1: it holds the store alone now\nflota status shows which machines are there; remove those that never come back: flota machine remove NAME\n"
	wants(t, s, "--\n"+end, "recover", "--yes")
	w := &world{s: s}
	if err := w.types(t, map[string]string{"[y/N] ": "y"}, "recover"); err != nil {
		t.Error(err)
	}
	has(t, w.screen(), "only for when most voters are lost for good", "start them instead", "What runs goes on running", "Do this on one machine only.", "Recover from the copy of m1? [y/N] "+end)
	(&world{s: s}).fails(t, fault.Internal, "unknown flag: --force", "recover", "--force") // cli makes wrong usage Invalid
	s.was("GET /v1/status", "GET /v1/status", "POST /v1/recover {}", "GET /v1/status", "POST /v1/recover {}")
}

func TestTrustShow(t *testing.T) {
	s := newServer(t)
	on := admit.Trust{Cluster: "c1", Authorities: []string{hash2, hash1}, Rotation: trust.Reissue, Reason: "m2 still uses a certificate of the old authority"}
	own := &api.Certificate{Machine: "m1", Made: moment, Ends: moment.Add(7 * 24 * time.Hour)}
	s.answers("GET /v1/trust", api.Trust{Trust: admit.Trust{Cluster: "c1", Authorities: []string{hash1}}, Certificate: own}, on)
	s.answers("GET /v1/machines", api.List[api.Machine]{Items: []api.Machine{
		{Machine: machine.Machine{ID: "a", Name: "m1", Standing: machine.Standing{Trusts: []string{hash1}, Issuer: hash1, Holds: []string{hash1}}}, Status: "ready"},
		{Machine: machine.Machine{ID: "b", Name: "m2"}, Status: "gone"},
	}})
	wants(t, s, `  cluster: c1
authority: `+hash1+` (issues certificates)
   change: none
  expires: 2031-02-10 04:05:06 UTC, the certificate of m1, which renews itself at 2031-02-06 16:05:06 UTC at the latest

MACHINE  STATUS  CERTIFICATE OF  TRUSTS    HOLDS KEY OF
m1       ready   11111111        11111111  11111111
m2       gone    -               -         -
`, "trust", "show")
	wants(t, s, `  cluster: c1
authority: `+hash2+` (issues certificates)
authority: `+hash1+` (old, is trusted until every machine has a new certificate)
   change: step 2 of 3: every machine gets a certificate of the new authority (m2 still uses a certificate of the old authority)

MACHINE  STATUS  CERTIFICATE OF  TRUSTS    HOLDS KEY OF
m1       ready   11111111        11111111  11111111
m2       gone    -               -         -
`, "trust", "show")
	late := *own
	late.Made = late.Made.AddDate(-20, 0, 0)
	late.Ends = late.Made.AddDate(0, 0, 2)
	if got, want := renewal(late, time.Now()), "which should have renewed itself at 2011-02-04 04:05:06 UTC"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	w := &world{s: s}
	var got shownTrust
	if err := errors.Join(w.run(t.Context(), "trust", "show", "--json"), json.Unmarshal([]byte(w.out.String()), &got)); err != nil {
		t.Fatal(err)
	}
	if got.Rotation != trust.Reissue || len(got.Machines) != 2 || got.Machines[0].Issuer != hash1 || got.Authorities[0] != hash2 {
		t.Errorf("%+v", got)
	}
}

func TestTrustRotate(t *testing.T) {
	begun := admit.Trust{Cluster: "c1", Authorities: []string{hash1, hash2}, Rotation: trust.Spread, Reason: "m2 does not trust it yet"}
	states := []any{
		begun, fault.New(fault.Unavailable, "no quorum"), fault.New(fault.Unavailable, "no quorum"),
		admit.Trust{Cluster: "c1", Authorities: []string{hash2, hash1}, Rotation: trust.Reissue},
		admit.Trust{Cluster: "c1", Authorities: []string{hash2}, Rotation: trust.Drop}, admit.Trust{Cluster: "c1", Authorities: []string{hash2}},
	}
	s := newServer(t)
	s.answers("POST /v1/trust/rotate", begun)
	s.answers("GET /v1/trust", states...)
	wants(t, s, `--
step 1 of 3: every machine learns of the new authority (m2 does not trust it yet)
no answer (no quorum); trying again
step 2 of 3: every machine gets a certificate of the new authority
step 3 of 3: every machine forgets the old authority
done: the authority is `+hash2+` now; command lines that flota token create printed before name the old one: make new ones
`, "trust", "rotate")
	wants(t, s, "--\nstep 1 of 3: every machine learns of the new authority (m2 does not trust it yet)\nflota trust show tells how far it is\n", "trust", "rotate", "--no-block")
	w := &world{s: s}
	if err := w.run(t.Context(), "trust", "rotate", "--json"); err != nil {
		t.Error(err)
	}
	if lines := strings.Split(strings.TrimSpace(w.out.String()), "\n"); len(lines) != 2 || !strings.Contains(lines[0], `"rotation":"spread"`) || strings.Contains(lines[1], "rotation") {
		t.Errorf("%q", lines)
	}
	s = newServer(t)
	s.answers("POST /v1/trust/rotate", begun, fault.WithHint(fault.New(fault.Conflict, "the authority is being changed already"), "flota trust show tells"))
	s.answers("GET /v1/trust", begun)
	w = &world{s: s}
	if err := interrupt(t, w, "step 1 of 3", "trust", "rotate"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	has(t, w.errs.String(), "interrupted; the change goes on without this command: flota trust show tells how far it is")
	(&world{s: s}).fails(t, fault.Conflict, "flota trust show", "trust", "rotate")
}
