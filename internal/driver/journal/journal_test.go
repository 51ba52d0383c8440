package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"flota/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running gives a Writer that runs until the test ends, and the child's end.
func running(t *testing.T, dir string, o Options) (*Writer, *os.File) {
	t.Helper()
	w, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	child, err := w.Child()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		child.Close()
		w.Close()
	})
	return w, child
}

// all reads everything that is kept.
func all(t *testing.T, dir string, lines int) []Line {
	t.Helper()
	var out []Line
	if err := Read(t.Context(), dir, lines, false, func(l Line) error { out = append(out, l); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func texts(lines []Line) (out []string) {
	for _, l := range lines {
		more := ""
		if l.More {
			more = "+"
		}
		out = append(out, l.Stream+more+":"+l.Text)
	}
	return out
}

func TestWhatIsPrintedAndSaid(t *testing.T) {
	dir := t.TempDir()
	w, child := running(t, dir, Options{})
	began := time.Now().Add(-time.Millisecond)
	fmt.Fprint(child, "one\n\ntwo words\nno end")
	w.Drain()
	w.Say("Main process exited.\nAnd more.")
	got := all(t, dir, -1)
	want := []string{"stdout:one", "stdout:", "stdout:two words", "stdout:no end", "flota:Main process exited.", "flota:And more."}
	if !slices.Equal(texts(got), want) {
		t.Errorf("got %q, want %q", texts(got), want)
	}
	for _, l := range got {
		if l.Time.Before(began) || l.Time.After(time.Now()) {
			t.Errorf("time %v of %q", l.Time, l.Text)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "log", "current"))
	if err != nil || !strings.Contains(string(text), " flota Main process exited.\n") {
		t.Errorf("file %q, %v", text, err)
	}
	st, err := os.Stat(filepath.Join(dir, "log", "current"))
	if err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

func TestLongLinesAreSplitAndMarked(t *testing.T) {
	dir := t.TempDir()
	w, child := running(t, dir, Options{})
	long := strings.Repeat("x", maxText+10)
	fmt.Fprintln(child, long)
	w.Drain()
	got := all(t, dir, -1)
	if len(got) != 2 || !got[0].More || got[1].More || got[0].Text+got[1].Text != long {
		t.Errorf("%d records, of %d bytes", len(got), len(texts(got)[0]))
	}
}

func TestQuietLineShowsAndItsRestFollows(t *testing.T) {
	dir := t.TempDir()
	_, child := running(t, dir, Options{})
	fmt.Fprint(child, "password: ")
	seen := make(chan string)
	ctx, cancel := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	ended.Go(func() {
		Read(ctx, dir, -1, true, func(l Line) error { seen <- texts([]Line{l})[0]; return nil })
	})
	if got := <-seen; got != "stdout+:password: " {
		t.Errorf("got %q", got)
	}
	fmt.Fprint(child, "ok\n")
	if got := <-seen; got != "stdout:ok" {
		t.Errorf("got %q", got)
	}
	cancel()
	ended.Wait()
}

func TestLastLinesAcrossFiles(t *testing.T) {
	dir := t.TempDir()
	w, child := running(t, dir, Options{MaxBytes: 2000, Files: 4})
	const total = 200
	for i := range total {
		fmt.Fprintf(child, "line %03d\n", i)
		w.Drain()
	}
	kept := all(t, dir, -1)
	names, _ := filepath.Glob(filepath.Join(dir, "log", "*"))
	if len(names) != 4 || len(kept) >= total || kept[len(kept)-1].Text != "line 199" {
		t.Fatalf("%d files, %d kept, last %q", len(names), len(kept), kept[len(kept)-1].Text)
	}
	for n := 0; n <= len(kept)+1; n++ {
		want := kept[len(kept)-min(n, len(kept)):]
		if got := all(t, dir, n); !slices.Equal(texts(got), texts(want)) {
			t.Fatalf("last %d: got %q", n, texts(got))
		}
	}
	for _, name := range names {
		if st, err := os.Stat(name); err != nil || st.Size() > 2000 {
			t.Errorf("%s has %d bytes", name, st.Size())
		}
	}
}

func TestNothingIsLostWhileNobodyReads(t *testing.T) {
	dir := t.TempDir()
	w, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	child, err := w.Child()
	if err != nil {
		t.Fatal(err)
	}
	defer child.Close()
	fmt.Fprintln(child, "before")
	w.Drain()
	w.Close() // the supervisor dies
	fmt.Fprintln(child, "meanwhile")
	next, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	next.Drain()
	if got := texts(all(t, dir, -1)); !slices.Equal(got, []string{"stdout:before", "stdout:meanwhile"}) {
		t.Errorf("got %q", got)
	}
}

func TestTornRecordIsEnded(t *testing.T) {
	dir := t.TempDir()
	w, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.Say("whole")
	w.Close()
	f, err := os.OpenFile(filepath.Join(dir, "log", "current"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("2026-01-01T00:0")
	f.Close()
	w, err = Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	w.Say("after")
	if got := texts(all(t, dir, -1)); !slices.Equal(got, []string{"flota:whole", "flota:after"}) {
		t.Errorf("got %q", got)
	}
}

func TestNoJournal(t *testing.T) {
	err := Read(t.Context(), t.TempDir(), -1, true, func(Line) error { return nil })
	if !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v", err)
	}
}

func TestFollowEndsWithTheJournal(t *testing.T) {
	dir := t.TempDir()
	w, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.Say("hello")
	w.Close()
	err = Read(t.Context(), dir, -1, true, func(Line) error { return Remove(dir) })
	if err != nil {
		t.Errorf("got %v", err)
	}
	if err := Remove(dir); err != nil {
		t.Errorf("remove again: %v", err)
	}
}

func TestErrorOfTheReaderComesBack(t *testing.T) {
	dir := t.TempDir()
	w, _ := running(t, dir, Options{})
	w.Say("hello")
	mine := errors.New("mine")
	if err := Read(t.Context(), dir, -1, true, func(Line) error { return mine }); err != mine {
		t.Errorf("got %v", err)
	}
}

// TestFloodThroughRotation prints 10,000 lines a second for 3 s while two readers follow: none lost, none twice.
func TestFloodThroughRotation(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 3 s")
	}
	const total = 30_000
	dir := t.TempDir()
	w, child := running(t, dir, Options{MaxBytes: 512 << 10})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			next := 0
			done := errors.New("done")
			err := Read(t.Context(), dir, -1, true, func(l Line) error {
				if want := line(next); l.Text != want {
					return fmt.Errorf("got %.20q, want %.20q", l.Text, want)
				}
				if next++; next == total {
					return done
				}
				return nil
			})
			if err != done {
				t.Errorf("at %d: %v", next, err)
			}
		})
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := 0; i < total; {
		<-tick.C
		for range 100 {
			fmt.Fprintln(child, line(i))
			i++
		}
	}
	w.Drain()
	readers.Wait()
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 2<<20 {
		t.Errorf("heap grew by %d bytes", grown)
	}
	if w.Dropped() != 0 {
		t.Errorf("%d bytes dropped", w.Dropped())
	}
}

func line(i int) string { return fmt.Sprintf("%06d %s", i, strings.Repeat("-", 60)) }

func TestFullDiskDropsAndTells(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("needs to mount:", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	w, child := running(t, dir, Options{})
	ballast := filepath.Join(dir, "ballast")
	os.WriteFile(ballast, make([]byte, 48<<10), 0o600)
	for range 40 { // more than FIFO and disk hold: the unit must not block
		fmt.Fprintln(child, strings.Repeat("y", 4000))
		w.Drain()
	}
	if w.Dropped() == 0 {
		t.Fatal("nothing was dropped")
	}
	os.Remove(ballast)
	fmt.Fprintln(child, "back")
	w.Drain()
	got := texts(all(t, dir, 2))
	if len(got) != 2 || got[1] != "stdout:back" || !strings.Contains(got[0], "bytes of output were lost: ") {
		t.Errorf("got %.80q", got)
	}
	for _, l := range all(t, dir, -1) {
		if l.Stream == "stdout" && l.Text != "back" && len(l.Text) != 4000 {
			t.Errorf("half a record: %d bytes", len(l.Text))
		}
	}
}

// TestAnyChunksGiveTheSameLines feeds a text in random pieces.
func TestAnyChunksGiveTheSameLines(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(r *rapid.T) {
		os.RemoveAll(filepath.Join(dir, "log"))
		os.Mkdir(filepath.Join(dir, "log"), 0o750)
		w := &Writer{dir: dir, out: &output{dir: logDir(dir), limits: Options{MaxBytes: 1 << 30, Files: 2}}}
		lines := rapid.SliceOfN(rapid.StringMatching(`[ -~]{0,30}`), 1, 20).Draw(r, "lines")
		text := []byte(strings.Join(lines, "\n") + "\n")
		for len(text) > 0 {
			n := rapid.IntRange(1, len(text)).Draw(r, "piece")
			w.feed(text[:n])
			text = text[n:]
		}
		w.out.close()
		var got []string
		for _, l := range all(t, dir, -1) {
			got = append(got, l.Text)
		}
		if !slices.Equal(got, lines) {
			r.Fatalf("got %q, want %q", got, lines)
		}
	})
}

func TestParseNeverPanics(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		parse(rapid.SliceOf(rapid.Byte()).Draw(r, "record"))
	})
}
