package backup

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
)

// stampForm is the time in a copy's name, UTC.
const stampForm = "20060102T150405Z"

// copyForm is the name of a copy: cluster, time. Whatever else lies in the directory is not touched.
var copyForm = regexp.MustCompile(`^([0-9a-f]{32})-([0-9]{8}T[0-9]{6}Z)\.flota$`)

// kept is one copy in the directory.
type kept struct {
	path string
	time time.Time
}

// copies lists this cluster's copies, the newest first. One of the future was made when the clock was wrong: it counts as the oldest, or
// else no copy would be made for as long, and it would outlive better ones.
func (k *Keeper) copies(cluster string, now time.Time) ([]kept, error) {
	all, err := os.ReadDir(k.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap(fault.Internal, err, "list backups")
	}
	var out []kept
	for _, e := range all {
		m := copyForm.FindStringSubmatch(e.Name())
		if m == nil || m[1] != cluster {
			continue
		}
		at, err := time.Parse(stampForm, m[2])
		if err != nil {
			continue
		}
		if at.After(now) {
			at = time.Time{}
		}
		out = append(out, kept{path: filepath.Join(k.Dir, e.Name()), time: at})
	}
	slices.SortFunc(out, func(a, b kept) int { return cmp.Or(b.time.Compare(a.time), strings.Compare(b.path, a.path)) })
	return out, nil
}

// due is how long it is until the next copy is to be made; not above 0: now.
func (k *Keeper) due(plan machine.Backup, now time.Time) (time.Duration, error) {
	all, err := k.copies(k.Source.About().Cluster, now)
	if err != nil || len(all) == 0 || all[0].time.IsZero() {
		return 0, err
	}
	return plan.Every - now.Sub(all[0].time), nil
}

// keep writes one copy, and removes those that are too many.
func (k *Keeper) keep(ctx context.Context, plan machine.Backup) error {
	if err := os.MkdirAll(k.Dir, 0o700); err != nil {
		return fault.Wrap(fault.Internal, err, "keep backups")
	}
	ctx, cancel := context.WithTimeout(ctx, writeMax)
	defer cancel()
	seal := Seal{Recipients: plan.Recipients, Plain: len(plan.Recipients) == 0}
	now := k.Now()
	cluster := k.Source.About().Cluster
	path := filepath.Join(k.Dir, cluster+"-"+now.UTC().Format(stampForm)+".flota")
	if copyForm.FindString(filepath.Base(path)) == "" {
		return fault.New(fault.Internal, "keep backups: the cluster's id %q is not 32 lower-case hex digits", cluster)
	}
	err := Save(path, func(w io.Writer) error {
		_, err := Write(ctx, w, k.Source, seal)
		return err
	})
	if err != nil {
		return err
	}
	k.Log.Info("backup written", "file", path)
	return k.prune(cluster, plan.Keep)
}

// prune removes the oldest copies above keep.
func (k *Keeper) prune(cluster string, keep int) error {
	all, err := k.copies(cluster, k.Now())
	if err != nil {
		return err
	}
	for _, c := range all[min(keep, len(all)):] {
		if err := os.Remove(c.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fault.Wrap(fault.Internal, err, "remove an old backup")
		}
	}
	return nil
}

// sweep removes what a process that died left of copies that were not finished. Nothing needs it to succeed.
func (k *Keeper) sweep() {
	all, _ := os.ReadDir(k.Dir) // there may be none yet
	for _, e := range all {
		name, _, part := strings.Cut(strings.TrimSuffix(e.Name(), partMark), ".flota.")
		if part && strings.HasSuffix(e.Name(), partMark) && copyForm.MatchString(name+".flota") || strings.HasPrefix(e.Name(), spoolMark) {
			_ = os.Remove(filepath.Join(k.Dir, e.Name()))
		}
	}
}
