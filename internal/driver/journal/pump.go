package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
)

// quiet is how long a line may stand without its end before it is written as it is, so that prompts show.
const quiet = 500 * time.Millisecond

// drainMost bounds Drain against a process that never stops printing. 1 MiB: the most that a FIFO holds by default.
const drainMost = 1 << 20

// buffers are shared by all Writers: an idle one holds none.
var buffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// Run copies the FIFO into the files until ctx ends (nil). A line that has no end yet is then written as it is; the
// next Writer goes on where this one stopped.
func (w *Writer) Run(ctx context.Context) error {
	raw, err := w.fifo.SyscallConn()
	if err != nil {
		return fmt.Errorf("run journal: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { w.fifo.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		var wake time.Time // never
		if w.waiting() {
			wake = time.Now().Add(quiet)
		}
		if err := w.fifo.SetReadDeadline(wake); err != nil {
			return fmt.Errorf("run journal: %w", err)
		}
		if ctx.Err() != nil {
			w.flush(true)
			return nil
		}
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			n, err := w.pump(int(fd), cap64k)
			failed = err
			return n > 0 || err != nil
		})
		switch {
		case failed != nil:
			return fmt.Errorf("read journal fifo: %w", failed)
		case errors.Is(err, os.ErrDeadlineExceeded):
			w.flush(true)
		case err != nil:
			return fmt.Errorf("wait for journal fifo: %w", err)
		}
	}
}

const cap64k = 64 << 10

// Drain writes what is in the FIFO now, and a last line without end, to the files before it returns. Called when the
// last process of a unit is gone, so that what is said of the unit after it stands after it.
func (w *Writer) Drain() {
	raw, err := w.fifo.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		for n := 0; n < drainMost; {
			m, err := w.pump(int(fd), drainMost-n)
			if m == 0 || err != nil {
				break
			}
			n += m
		}
	})
	w.flush(false)
}

// waiting reports whether a line stands without its end.
func (w *Writer) waiting() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.part) > 0
}

// flush writes the line that stands without its end.
func (w *Writer) flush(more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.part) == 0 {
		return
	}
	w.out.write(appendRecord(nil, time.Now(), streamOut, w.part, more))
	w.part = nil
}

// pump copies up to about most bytes that are in the FIFO now; 0 if there are none.
func (w *Writer) pump(fd, most int) (n int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	in := buffers.Get().(*[]byte)
	defer buffers.Put(in)
	for n < most {
		m, err := syscall.Read(fd, *in)
		if err == syscall.EINTR {
			continue
		}
		if err == syscall.EAGAIN || err == nil && m == 0 {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		n += m
		w.feed((*in)[:m])
	}
	return n, nil
}

// feed turns bytes into records.
func (w *Writer) feed(b []byte) {
	now := time.Now()
	out := buffers.Get().(*[]byte)
	defer buffers.Put(out)
	records := (*out)[:0]
	for {
		line, rest, found := bytes.Cut(b, []byte{'\n'})
		if len(w.part) > 0 || !found {
			w.part = append(w.part, line...)
			line = w.part
		}
		for len(line) > maxText {
			records = appendRecord(records, now, streamOut, line[:maxText], true)
			line = line[maxText:]
		}
		if !found {
			w.part = append([]byte(nil), line...)
			break
		}
		records = appendRecord(records, now, streamOut, line, false)
		w.part = nil
		if b = rest; len(b) == 0 {
			break
		}
	}
	w.out.write(records)
}
