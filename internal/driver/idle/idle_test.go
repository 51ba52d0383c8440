package idle

import (
	"context"
	"testing"

	"flota/internal/driver"
	"flota/internal/fault"
	"flota/internal/unit"
)

func TestNothingEverRuns(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var d Driver
	if err := d.Load(ctx, unit.Unit{Name: "a.service"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("load: %v", err)
	}
	if err := d.Start(ctx, "a.service", 1); !fault.Is(err, fault.NotFound) {
		t.Errorf("start: %v", err)
	}
	if err := d.Logs(ctx, "a.service", driver.LogOptions{}, nil); !fault.Is(err, fault.NotFound) {
		t.Errorf("logs: %v", err)
	}
	if err := d.Unload(ctx, "a.service"); err != nil {
		t.Errorf("unload: %v", err)
	}
	calls := 0
	err := d.Watch(ctx, func(states []unit.State, first bool) {
		calls++
		if len(states) != 0 || !first {
			t.Errorf("told of %v, first %v", states, first)
		}
		cancel()
	})
	if err != nil || calls != 1 {
		t.Errorf("watch: %v after %d calls", err, calls)
	}
}
