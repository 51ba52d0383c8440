package supervise

import (
	"testing"

	"flota/internal/driver/lifecycle"
)

func TestTurn(t *testing.T) {
	for _, c := range []struct {
		name           string
		before         lifecycle.Phase
		now            lifecycle.Record
		began, started bool
	}{
		{"a start", lifecycle.Dead, lifecycle.Record{Phase: lifecycle.Start}, true, false},
		{"the first start", "", lifecycle.Record{Phase: lifecycle.StartPre}, true, false},
		{"after a failure", lifecycle.Failed, lifecycle.Record{Phase: lifecycle.Condition}, true, false},
		{"an automatic restart", lifecycle.AutoRestart, lifecycle.Record{Phase: lifecycle.Start}, true, false},
		{"on the way", lifecycle.StartPre, lifecycle.Record{Phase: lifecycle.Start}, false, false},
		{"started", lifecycle.Start, lifecycle.Record{Phase: lifecycle.Running}, false, true},
		{"at once", lifecycle.Dead, lifecycle.Record{Phase: lifecycle.Exited}, true, true},
		{"a oneshot is done", lifecycle.Start, lifecycle.Record{Phase: lifecycle.StopSigterm, Result: lifecycle.Success}, false, true},
		{"failed on the way", lifecycle.Start, lifecycle.Record{Phase: lifecycle.StopSigterm, Result: lifecycle.ExitCode}, false, false},
		{"stopped on the way", lifecycle.Start, lifecycle.Record{Phase: lifecycle.StopSigterm, Result: lifecycle.Success, Forbid: true}, false, false},
		{"a reload", lifecycle.Running, lifecycle.Record{Phase: lifecycle.Reload}, false, false},
		{"the end of a reload", lifecycle.Reload, lifecycle.Record{Phase: lifecycle.Running}, false, false},
		{"stopping", lifecycle.Running, lifecycle.Record{Phase: lifecycle.StopSigterm}, false, false},
		{"stopped", lifecycle.StopSigterm, lifecycle.Record{Phase: lifecycle.Dead}, false, false},
		{"conditions do not hold", lifecycle.Dead, lifecycle.Record{Phase: lifecycle.Failed}, false, false},
		{"restart given up", lifecycle.AutoRestart, lifecycle.Record{Phase: lifecycle.Dead}, false, false},
	} {
		if began, started := turn(c.before, &c.now); began != c.began || started != c.started {
			t.Errorf("%s: began %t, started %t", c.name, began, started)
		}
	}
}

func TestACauseStartsEachUnitOnce(t *testing.T) {
	c := newCause("x.service")
	if c.take("x.service") || !c.take("a.service") || c.take("a.service") || !c.take("b.service") {
		t.Error("a unit would be started twice or not at all")
	}
}
