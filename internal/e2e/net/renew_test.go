package netbed

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"flota/internal/api"
	"flota/internal/driver"
)

// asker asks machines for what other machines know, again and again, and keeps what failed.
type asker struct {
	stop context.CancelFunc
	all  sync.WaitGroup

	mu     sync.Mutex // guards what follows
	asked  int
	faults []error
}

// ask lets each of the machines be asked for the cluster's state and for a log that lies on another machine, ten times in a second.
func (b *bed) ask(t *testing.T, machines []int, units []string) *asker {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	a := &asker{stop: cancel}
	for _, i := range machines {
		c, err := api.NewClient([]string{"unix://" + b.socket(i)}, api.ClientOptions{})
		if err != nil {
			t.Fatal(err)
		}
		a.all.Go(func() {
			defer c.Close()
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for n := 0; ; n++ {
				began := time.Now()
				_, err := c.Status(ctx)
				if err == nil {
					err = c.Logs(ctx, units[n%len(units)]+".service", "", driver.LogOptions{Lines: 1}, func(api.LogLine) error { return nil })
				}
				if ctx.Err() != nil {
					return
				}
				a.mu.Lock()
				a.asked++
				if err != nil {
					a.faults = append(a.faults, fmt.Errorf("m%d, call %d, after %s: %w", i, n, time.Since(began), err))
				}
				a.mu.Unlock()
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	t.Cleanup(a.end)
	return a
}

// end stops asking.
func (a *asker) end() {
	a.stop()
	a.all.Wait()
}

// TestCertificatesRenew gives certificates a short life and asks all the while: they are renewed and no request fails. A machine that was off for
// longer than the life of its certificate is back by itself.
func TestCertificatesRenew(t *testing.T) {
	life, under := 10*time.Second, 25*time.Second
	if *long {
		life, under = 30*time.Second, 5*time.Minute
	}
	b := newCluster(t, 4, 4, "--cert-life", life.String())
	_, plain := b.launchUnits(t, 1, 0, 8)
	was := b.badgeOf(t, 1, "m1").cert.Leaf.SerialNumber
	a := b.ask(t, b.numbers(), plain)
	w := b.write(t, 4, "load", 50*time.Millisecond)
	spend(t, under, func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.faults) > 0 {
			return a.faults[0]
		}
		return nil
	})
	a.end()
	n, worst := w.end()
	t.Logf("%d requests and %d keys in %s; the longest wait for a key %s", a.asked, n, under, worst)
	if a.asked < 100 || n < 100 {
		t.Errorf("%d requests and %d keys prove nothing", a.asked, n)
	}
	if worst > 2*time.Second {
		t.Errorf("a key took %s", worst)
	}
	for _, i := range b.numbers() {
		c := b.badgeOf(t, i, "").cert.Leaf
		if c.NotAfter.Before(time.Now()) || time.Until(c.NotAfter) > life {
			t.Errorf("m%d has a certificate up to %s", i, c.NotAfter)
		}
		if i == 1 && c.SerialNumber.Cmp(was) == 0 {
			t.Error("the certificate of m1 was never renewed")
		}
	}
	for _, i := range []int{4, 2} { // a client and a voter
		b.Kill(t, i)
		off := b.badgeOf(t, i, "").cert.Leaf.NotAfter.Add(2 * time.Second)
		if !until(patience, func() bool { return time.Now().After(off) }) {
			t.Fatalf("m%d's certificate holds until %s", i, off)
		}
		b.start(t, i)
		b.ready(t, 1, i)
	}
	within(t, patience, "every unit where the store says", func() error { return b.agree(2) })
	w.judge(t, 2)
}
