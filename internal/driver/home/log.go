package home

import (
	"os"
	"sync"
)

// maxLog is the size at which the supervisor's own log is rotated; two files are kept. 1 MiB holds some 8,000 lines.
const maxLog = 1 << 20

// LogFile is a bounded file. The zero value with Path set is ready. Write never fails the caller for a full disk.
type LogFile struct {
	Path string

	mu   sync.Mutex // guards the fields below
	file *os.File
	size int64
}

// Write appends p, after rotating a full file.
func (l *LogFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil && l.size > maxLog {
		l.file.Close()
		l.file = nil
		os.Rename(l.Path, l.Path+".1")
	}
	if l.file == nil {
		f, err := os.OpenFile(l.Path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			return len(p), nil // nothing can be said about a log that cannot be written
		}
		l.file = f
		if info, err := f.Stat(); err == nil {
			l.size = info.Size()
		}
	}
	n, _ := l.file.Write(p)
	l.size += int64(n)
	return len(p), nil
}
