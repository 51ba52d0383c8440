package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// output is the file that records go to, with its rotation. It is not safe for concurrent use.
type output struct {
	dir     string
	limits  Options
	file    *os.File // nil until the first record
	size    int64
	dropped int64 // bytes, since the beginning
	untold  int64 // bytes dropped that the journal has not told of
	failure error // of the last write; nil if it went well
}

func (o *output) path(n int) string {
	if n == 0 {
		return filepath.Join(o.dir, "current")
	}
	return filepath.Join(o.dir, "old."+strconv.Itoa(n))
}

// write appends whole records, after rotating if they do not fit. What cannot be written is dropped and counted.
func (o *output) write(records []byte) {
	if len(records) == 0 {
		return
	}
	if o.untold > 0 {
		text := fmt.Sprintf("%d bytes of output were lost: %v", o.untold, o.failure)
		told := appendRecord(nil, time.Now(), streamFlota, []byte(text), false)
		if o.append(append(told, records...)) == nil {
			o.untold, o.failure = 0, nil
			return
		}
	} else if o.failure = o.append(records); o.failure == nil {
		return
	}
	o.dropped += int64(len(records))
	o.untold += int64(len(records))
}

// append writes all of b or nothing.
func (o *output) append(b []byte) error {
	if o.file != nil && o.size > 0 && o.size+int64(len(b)) > o.limits.MaxBytes {
		if err := o.rotate(); err != nil {
			return err
		}
	}
	if o.file == nil {
		if err := o.open(); err != nil {
			return err
		}
	}
	n, err := o.file.Write(b)
	if err != nil {
		if n > 0 {
			o.file.Truncate(o.size)
		}
		return err
	}
	o.size += int64(n)
	return nil
}

// open opens the current file and ends a record that a crash tore.
func (o *output) open() error {
	f, err := os.OpenFile(o.path(0), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	o.file, o.size = f, st.Size()
	var last [1]byte
	if o.size > 0 {
		if _, err := f.ReadAt(last[:], o.size-1); err == nil && last[0] != '\n' {
			if n, err := f.Write([]byte{'\n'}); err == nil {
				o.size += int64(n)
			}
		}
	}
	return nil
}

// rotate makes the current file old.1 and old.N old.N+1; the oldest goes. A file is complete when it is renamed.
func (o *output) rotate() error {
	if o.limits.Files == 1 {
		if err := os.Remove(o.path(0)); err != nil {
			return err
		}
	}
	for n := o.limits.Files - 2; n >= 0; n-- {
		if err := os.Rename(o.path(n), o.path(n+1)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return o.close()
}

func (o *output) close() error {
	if o.file == nil {
		return nil
	}
	err := o.file.Close()
	o.file, o.size = nil, 0
	return err
}
