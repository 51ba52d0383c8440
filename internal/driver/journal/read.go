package journal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"flota/internal/fault"
)

// Read calls f with the last lines records of the journal in dir (negative: all that is kept), oldest first, and with follow goes on with new
// ones until ctx ends or the journal is removed (both nil). Rotation loses and repeats nothing while the reader is no more than one whole
// file behind. f's error ends it and is given back. fault.NotFound if there is no journal in dir.
func Read(ctx context.Context, dir string, lines int, follow bool, f func(Line) error) error {
	err := read(ctx, dir, lines, follow, f)
	if err == errEnded {
		return nil
	}
	return err
}

func read(ctx context.Context, dir string, lines int, follow bool, f func(Line) error) error {
	r := &reader{ctx: ctx, dir: logDir(dir), f: f}
	defer r.close()
	if follow {
		// Watch before the first look: what is written in between then wakes the watch once for nothing, and is never missed.
		w, err := newWatch(r.dir)
		if err != nil {
			return missing(dir, err)
		}
		defer w.close()
		r.watch = w
	}
	files, err := chain(r.dir)
	if err != nil {
		return missing(dir, err)
	}
	if err := r.start(files, lines); err != nil {
		return err
	}
	for {
		if err := r.toEnd(); err != nil {
			return err
		}
		moved, err := r.next()
		if err != nil {
			return err
		}
		if moved {
			continue
		}
		if !follow {
			return nil
		}
		if on, err := r.watch.wait(ctx); err != nil || !on {
			return err
		}
	}
}

func missing(dir string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fault.New(fault.NotFound, "no journal in %q", dir)
	}
	return fmt.Errorf("read journal: %w", err)
}

// chain opens all files, newest first. It is empty if nothing was written yet.
func chain(dir string) ([]*os.File, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	const tries = 100 // each ends early only if a rotation fell into it
	for range tries {
		files, err := openAll(dir)
		if err != nil {
			return nil, err
		}
		if consistent(dir, files) {
			return files, nil
		}
		closeAll(files)
	}
	return nil, fmt.Errorf("files in %q do not hold still", dir)
}

func openAll(dir string) (files []*os.File, err error) {
	for n := 0; ; n++ {
		name := "current"
		if n > 0 {
			name = "old." + strconv.Itoa(n)
		}
		f, err := os.Open(filepath.Join(dir, name))
		switch {
		case err == nil:
			files = append(files, f)
		case !errors.Is(err, os.ErrNotExist):
			closeAll(files)
			return nil, err
		case n > 0:
			return files, nil
		}
	}
}

// consistent reports whether no rotation happened while the files were opened.
func consistent(dir string, files []*os.File) bool {
	var last os.FileInfo
	for _, f := range files {
		st, err := f.Stat()
		if err != nil || last != nil && os.SameFile(st, last) {
			return false
		}
		last = st
	}
	now, err := os.Stat(filepath.Join(dir, "current"))
	if err != nil {
		return len(files) == 0 || filepath.Base(files[0].Name()) != "current"
	}
	if len(files) == 0 {
		return false
	}
	first, err := files[0].Stat()
	return err == nil && os.SameFile(first, now)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// reader goes through the records of one journal.
type reader struct {
	ctx   context.Context
	dir   string
	f     func(Line) error
	watch *watch
	file  *os.File // nil while nothing was ever written
	buf   *bufio.Reader
	at    int64 // offset of the next record in file
}

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
	}
}

// enter goes on reading in f from an offset.
func (r *reader) enter(f *os.File, at int64) error {
	r.close()
	r.file, r.at = f, at
	if _, err := f.Seek(at, io.SeekStart); err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	if r.buf == nil {
		r.buf = bufio.NewReaderSize(f, maxText+128)
	} else {
		r.buf.Reset(f)
	}
	return nil
}

// start enters the file in which the last lines records begin. It takes over files, newest first.
func (r *reader) start(files []*os.File, lines int) error {
	if len(files) == 0 {
		return nil
	}
	at := int64(0)
	chosen := len(files) - 1
	if lines >= 0 {
		for i, f := range files {
			n, offset, err := fromEnd(f, lines)
			if err != nil {
				closeAll(files)
				return fmt.Errorf("read journal: %w", err)
			}
			if chosen, at = i, offset; n == lines {
				break
			}
			lines -= n
		}
	}
	for i, f := range files {
		if i != chosen {
			f.Close()
		}
	}
	return r.enter(files[chosen], at)
}

// fromEnd finds the offset where the last lines records of f begin, and how many there are of them.
func fromEnd(f *os.File, lines int) (n int, at int64, err error) {
	st, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	end := st.Size()
	if lines == 0 {
		return 0, end, nil
	}
	block := make([]byte, 64<<10)
	for pos := end; pos > 0; {
		size := min(pos, int64(len(block)))
		pos -= size
		if _, err := f.ReadAt(block[:size], pos); err != nil {
			return 0, 0, err
		}
		for i := size - 1; i >= 0; i-- {
			if block[i] != '\n' || pos+i == end-1 {
				continue
			}
			if n++; n == lines {
				return n, pos + i + 1, nil
			}
		}
	}
	if end > 0 {
		n++
	}
	return n, 0, nil
}

// toEnd gives all whole records that the file has now.
func (r *reader) toEnd() error {
	for r.file != nil {
		if err := r.ctx.Err(); err != nil {
			return r.ended()
		}
		line, err := r.buf.ReadSlice('\n')
		switch {
		case err == bufio.ErrBufferFull:
			r.at += int64(len(line)) // not a record of ours
			continue
		case err == io.EOF:
			if len(line) > 0 {
				return r.again() // still being written
			}
			return nil
		case err != nil:
			return fmt.Errorf("read journal: %w", err)
		}
		r.at += int64(len(line))
		if l, ok := parse(line[:len(line)-1]); ok {
			if err := r.f(l); err != nil {
				return err
			}
		}
	}
	return nil
}

// again makes the reader read from at once more, as the buffer holds half a record.
func (r *reader) again() error {
	if _, err := r.file.Seek(r.at, io.SeekStart); err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	r.buf.Reset(r.file)
	return nil
}

// ended is what Read gives when ctx has ended: nothing for one who follows, which has no other end.
func (r *reader) ended() error {
	if r.watch != nil {
		return errEnded
	}
	return r.ctx.Err()
}

// next enters the file after this one, if there is one.
func (r *reader) next() (moved bool, err error) {
	if r.file != nil {
		now, err := os.Stat(filepath.Join(r.dir, "current"))
		if err == nil {
			if mine, err := r.file.Stat(); err == nil && os.SameFile(mine, now) {
				return false, nil
			}
		}
		if err := r.toEnd(); err != nil { // it was renamed after its last record
			return false, err
		}
	}
	files, err := chain(r.dir)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return false, errEnded // removed
		}
		return false, fmt.Errorf("read journal: %w", err)
	}
	newer := len(files) - 1 // ours is gone: the oldest that is left
	if r.file != nil {
		mine, err := r.file.Stat()
		if err != nil {
			closeAll(files)
			return false, fmt.Errorf("read journal: %w", err)
		}
		for i, f := range files {
			if st, err := f.Stat(); err == nil && os.SameFile(st, mine) {
				newer = i - 1
			}
		}
	}
	for i, f := range files {
		if i != newer {
			f.Close()
		}
	}
	if newer < 0 {
		if len(files) == 0 {
			// Ours is removed. Held open, it would keep the directory from telling the watch of its own end.
			r.close()
			r.file = nil
		}
		return false, nil
	}
	return true, r.enter(files[newer], 0)
}
