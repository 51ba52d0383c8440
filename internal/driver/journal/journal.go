// Package journal keeps what one unit prints, in bounded files that anyone may grep, tail and follow.
//
// The unit's processes write into a FIFO, which they hold open for reading too: the death of the process that empties it
// never breaks or signals them, and what they printed meanwhile waits in it (64 KiB, then they block) for the
// next Writer. A Writer copies the FIFO into DIR/log/current, one line per record, and renames that to old.1, old.2, … when it is full.
//
// A record is "TIME STREAM TEXT\n": UTC time with microseconds in RFC 3339, the moment the line was read; the
// stream out (what the unit printed) or flota (what is said of it); a + after the stream says that the unit's line goes on
// in the next record of that stream, because it is longer than 64 KiB, or stood still without a line end.
//
// The invariant: bytes that left the FIFO are in the files, in order and once, unless the disk is full or the writing process is killed in
// the instant between the two; a full disk never blocks the unit: output is dropped, counted, and the loss told in the journal when there is room again.
//
// There is one Writer at a time (the supervisor), and any number of readers in other processes. Nothing here polls.
// Start reading at Writer, then Read.
package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Options bounds one unit's journal. The zero value means the defaults.
type Options struct {
	MaxBytes int64 // size at which a file is rotated; 0 is 5 MiB
	Files    int   // files kept, the current one included; 0 is 2
}

const (
	defaultMaxBytes = 5 << 20
	defaultFiles    = 2
)

// Writer keeps one unit's output. Its methods are safe for concurrent use; Run may run once at a time.
type Writer struct {
	dir  string
	fifo *os.File // O_RDWR and non-blocking

	mu   sync.Mutex // guards the fields below
	out  *output
	part []byte // what the unit printed since its last line end
}

// FIFO gives the path of the FIFO of a journal in dir.
func FIFO(dir string) string { return filepath.Join(dir, "out") }

// logDir is where the files are.
func logDir(dir string) string { return filepath.Join(dir, "log") }

// Open makes or opens the journal in dir, which must exist: the FIFO dir/out (0600) and the directory dir/log (0750).
// What waits in the FIFO is kept for Run.
func Open(dir string, o Options) (*Writer, error) {
	if o.MaxBytes <= 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.Files <= 0 {
		o.Files = defaultFiles
	}
	if err := os.Mkdir(logDir(dir), 0o750); err != nil && !os.IsExist(err) {
		return nil, fmt.Errorf("make journal: %w", err)
	}
	if err := syscall.Mkfifo(FIFO(dir), 0o600); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("make journal fifo in %q: %w", dir, err)
	}
	fifo, err := os.OpenFile(FIFO(dir), os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	st, err := fifo.Stat()
	if err == nil && st.Mode()&os.ModeNamedPipe == 0 {
		err = fmt.Errorf("%q is not a fifo", FIFO(dir))
	}
	if err != nil {
		fifo.Close()
		return nil, fmt.Errorf("open journal: %w", err)
	}
	return &Writer{dir: dir, fifo: fifo, out: &output{dir: logDir(dir), limits: o}}, nil
}

// Child gives the file that a unit's process gets as stdout and stderr: the FIFO, open for both directions and blocking.
// The caller closes it after launch.Start.
func (w *Writer) Child() (*os.File, error) {
	fd, err := syscall.Open(FIFO(w.dir), syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open journal for a process: %w", err)
	}
	return os.NewFile(uintptr(fd), FIFO(w.dir)), nil
}

// Say writes lines of the stream flota. It never fails: what the disk does not take is counted as dropped.
func (w *Writer) Say(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out.write(appendText(nil, time.Now(), streamFlota, []byte(text)))
}

// Dropped is how many bytes of records were lost to a full disk since Open.
func (w *Writer) Dropped() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.dropped
}

// Close closes the files after Run has returned. FIFO and files stay. Safe to call more than once.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.fifo.Close()
	if errors.Is(err, os.ErrClosed) {
		err = nil
	}
	return errors.Join(err, w.out.close())
}

// Remove removes FIFO and files of the journal in dir. Readers that follow it end. Nothing there is no error.
func Remove(dir string) error {
	err := os.Remove(FIFO(dir))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, os.RemoveAll(logDir(dir)))
}
