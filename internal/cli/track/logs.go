package track

import (
	"context"
	"errors"
	"slices"
	"sync"

	"flota/internal/api"
	"flota/internal/driver"
	"flota/internal/fault"
)

// maxFollow is how many units may be followed at once, each with a stream of its own.
const maxFollow = 64

// LogSource is what Logs needs of a client.
type LogSource interface {
	Logs(ctx context.Context, name, machine string, o driver.LogOptions, f func(api.LogLine) error) error
}

// Logs gives the lines of units: all of them in the order of their time, or when following as they come. f is not called twice at once. One
// broken stream ends all, rather than be silent about its unit. fault.Invalid for too many units to follow.
func Logs(ctx context.Context, src LogSource, units []api.Unit, machine string, o driver.LogOptions, f func(api.LogLine) error) error {
	if o.Follow && len(units) > maxFollow {
		return fault.WithHint(fault.New(fault.Invalid, "%d units are too many to follow at once: the limit is %d", len(units), maxFollow), "choose fewer")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex // guards all, and f
	var all []api.LogLine
	errs := make([]error, len(units))
	slots := make(chan struct{}, maxFollow)
	var wg sync.WaitGroup
	for i, u := range units {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			errs[i] = src.Logs(ctx, string(u.Name), machine, o, func(line api.LogLine) error {
				mu.Lock()
				defer mu.Unlock()
				if o.Follow || len(units) == 1 {
					return f(line)
				}
				all = append(all, line)
				return nil
			})
			if errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	slices.SortStableFunc(all, func(x, y api.LogLine) int { return x.Time.Compare(y.Time) })
	for _, line := range all {
		if err := f(line); err != nil {
			return err
		}
	}
	return firstReal(errs)
}

// firstReal gives the first error that is more than the end of the others.
func firstReal(errs []error) error {
	var canceled error
	for _, err := range errs {
		if errors.Is(err, context.Canceled) {
			canceled = err
		} else if err != nil {
			return err
		}
	}
	return canceled
}
