package fake_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"flota/internal/driver"
	"flota/internal/driver/drivertest"
	"flota/internal/driver/fake"
	"flota/internal/unit"
)

// half is how long slow things of the bed take.
const half = 500 * time.Millisecond

var behaviours = map[drivertest.Behaviour]fake.Behaviour{
	drivertest.Forever:     {},
	drivertest.ExitsZero:   {EndAfter: time.Millisecond},
	drivertest.ExitsThree:  {FailStart: true, ExitCode: 3},
	drivertest.Restarting:  {FailStart: true, ExitCode: 3, Restart: true},
	drivertest.IgnoresTerm: {StopTakes: half, StopKilled: true},
	drivertest.Prints:      {Lines: 50},
	drivertest.SlowStart:   {StartDelay: half},
	drivertest.Reloads:     {Reload: "ok"},
	drivertest.ReloadFails: {Reload: "fail"},
	drivertest.Exclusive:   {Exclusive: true},
	drivertest.Broken:      {Bad: "Type=dance: unknown type"},
}

func TestConformance(t *testing.T) {
	defer goleak.VerifyNone(t)
	drivertest.Run(t, func(t *testing.T) drivertest.Bed {
		d := fake.New(fake.Options{OnRun: once(t)})
		return drivertest.Bed{
			Open: func() driver.Driver { d.PowerOn(); return d },
			Unit: func(name unit.Name, does drivertest.Behaviour) unit.Unit {
				text, err := json.Marshal(behaviours[does])
				if err != nil {
					t.Fatal(err)
				}
				return unit.Unit{Name: name, Options: []unit.Option{{Section: "X-Fake", Name: fake.BehaviourKey, Value: string(text)}}}
			},
			RestartBackend: d.BreakWatches,
			KillBackend:    d.BreakWatches,
			PowerCut:       d.PowerCut,
		}
	})
}

// once gives an observer that fails the test if a unit runs twice at once.
func once(t *testing.T) func(unit.Name, uint64, bool) {
	running := map[unit.Name]bool{}
	return func(name unit.Name, run uint64, started bool) {
		if running[name] == started {
			t.Errorf("%s under run %d: started=%v twice", name, run, started)
		}
		running[name] = started
	}
}

func TestCrashRestartsOnVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var story []string
		begin := time.Now()
		d := fake.New(fake.Options{OnRun: func(name unit.Name, run uint64, started bool) {
			story = append(story, fmt.Sprintf("%v %s %d %v", time.Since(begin), name, run, started))
		}})
		d.Script("a.service", fake.Behaviour{Restart: true, StartDelay: time.Second})
		must(t, d.Load(t.Context(), unit.Unit{Name: "a.service"}))
		must(t, d.Start(t.Context(), "a.service", 7))
		time.Sleep(time.Hour)
		if !d.Crash("a.service") || d.Crash("a.service") {
			t.Error("crash did not report what it did")
		}
		time.Sleep(time.Hour)
		if got := d.Running()["a.service"]; got != 7 {
			t.Errorf("run %d", got)
		}
		want := "[0s a.service 7 true 1h0m0s a.service 7 false 1h0m0.1s a.service 7 true]"
		if fmt.Sprint(story) != want {
			t.Errorf("story %v, want %s", story, want)
		}
	})
}

func TestFenceOnVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := fake.New(fake.Options{})
		must(t, d.Fence(t.Context(), 5*time.Second))
		must(t, d.Load(t.Context(), unit.Unit{Name: "x.service", Options: []unit.Option{{Section: "X-Flota", Name: "Exclusive", Value: "true"}}}))
		must(t, d.Start(t.Context(), "x.service", 1))
		time.Sleep(4 * time.Second)
		must(t, d.Fence(t.Context(), 5*time.Second))
		time.Sleep(5*time.Second - 1)
		if len(d.Running()) != 1 {
			t.Error("fenced too early")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if len(d.Running()) != 0 {
			t.Error("not fenced")
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
