package backup

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"flota/internal/fault"
)

// partMark ends the name of a file that is not complete.
const partMark = ".part"

// Save makes a file of what write writes: it appears complete, or not at all, and only its owner may read it. A file that is there is replaced.
// What a process that died left beside it is called path.part… Errors of write as they are.
func Save(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*"+partMark) // 0600
	if err != nil {
		return fault.Wrap(fault.Internal, err, "write the backup")
	}
	defer func() {
		if err != nil {
			f.Close()
			_ = os.Remove(f.Name()) // the first error is the one that tells
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fault.Wrap(fault.Internal, err, "write the backup")
	}
	if err := f.Close(); err != nil {
		return fault.Wrap(fault.Internal, err, "write the backup")
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fault.Wrap(fault.Internal, err, "write the backup")
	}
	return fault.Wrap(fault.Internal, syncFile(filepath.Dir(path)), "write the backup")
}

// syncFile flushes a file or directory to the disk.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// syncTree flushes all that lies in dir, and dir itself.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() && !d.Type().IsRegular() {
			return err
		}
		return syncFile(path)
	})
}
