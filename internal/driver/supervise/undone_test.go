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
			"[Unit] After=: not acted on (db.service, cache.service)", "[Unit] Requires=: acted on only while on the same machine (db.service)"}},
		{"BindsTo=a.service\nPartOf=web.target\nOnFailure=alert@%n.service", []string{
			"[Unit] BindsTo=: acted on only while on the same machine (a.service)", "[Unit] OnFailure=: not acted on (alert@%n.service)",
			"[Unit] PartOf=: acted on only while on the same machine (web.target)"}},
		{"BindsTo=web@%i.service\nAfter=web@%i.service\n[Install]\nWantedBy=web@%i.service\n[X-Fleet]\nMachineOf=web@%i.service", nil},
		{"Wants=b.service c.service\n[Install]\nRequiredBy=d.service\n[X-Fleet]\nMachineOf=c.service", []string{
			"[Install] RequiredBy=: acted on only while on the same machine (d.service)", "[Unit] Wants=: acted on only while on the same machine (b.service)"}},
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
