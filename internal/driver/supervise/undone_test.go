package supervise

import (
	"slices"
	"testing"

	"flota/internal/unit"
)

func TestUndone(t *testing.T) {
	for _, x := range []struct {
		text string
		want []string
	}{
		{"Description=x\nDocumentation=man:x\nAfter=network.target local-fs.target systemd-resolved.service\nWants=network-online.target\nConflicts=shutdown.target", nil},
		{"Requires=db.service\nAfter=network.target db.service\nAfter=cache.service db.service", []string{
			"[Unit] After=: not acted on (db.service, cache.service)", "[Unit] Requires=: not acted on (db.service)"}},
		{"BindsTo=a.service\nPartOf=web.target\nOnFailure=alert@%n.service", []string{
			"[Unit] BindsTo=: not acted on (a.service)", "[Unit] OnFailure=: not acted on (alert@%n.service)", "[Unit] PartOf=: not acted on (web.target)"}},
		{"FailureAction=reboot\nSuccessAction=none\nStopWhenUnneeded=yes\nJobTimeoutSec=5", []string{
			"[Unit] FailureAction=: not acted on (reboot)", "[Unit] JobTimeoutSec=: not acted on (5)", "[Unit] StopWhenUnneeded=: not acted on (yes)"}},
		{"After=\\\n  db.service", []string{"[Unit] After=: not acted on (db.service)"}},
	} {
		f, _, err := unit.Parse("a.service", []byte("[Unit]\n"+x.text+"\n[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"))
		if err != nil {
			t.Fatal(err)
		}
		if got := undone(f); !slices.Equal(got, x.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", x.text, got, x.want)
		}
	}
}
