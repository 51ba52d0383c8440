// Program ledger is a unit that keeps a book of its own life: ledger DIR UNIT PERIOD.
//
// It writes one line each to a file of its own in DIR: start, a tick in every PERIOD, stop when it is told to end, and clash when another
// process of the same unit is there at the same time, which it knows by a lock that the kernel drops when a process ends, however it ends.
// A line is "WORD NANOSECONDS"; the clock is CLOCK_BOOTTIME, one for all network namespaces of a host, so that lines of different machines
// have an order. The first line's time is the fencing number of this instance. A line is one write: what was written before the
// process was killed is in the file. Starts, stops and clashes are synced.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) != 4 {
		fail(fmt.Errorf("usage: ledger DIR UNIT PERIOD"))
	}
	period, err := time.ParseDuration(os.Args[3])
	if err != nil {
		fail(err)
	}
	if err := keep(os.Args[1], os.Args[2], period); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "ledger:", err)
	os.Exit(1)
}

// keep writes the book until the process is told to end.
func keep(dir, unit string, period time.Duration) error {
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)
	began := now()
	name := fmt.Sprintf("%s,%s,%d,%d.book", unit, os.Getenv("FLOTA_MACHINE"), os.Getpid(), began)
	book, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	if err := write(book, "start", began, true); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(dir, unit+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	alone := false
	tick := time.NewTicker(period)
	defer tick.Stop()
	for word := "start"; ; word = "tick" {
		if !alone {
			alone = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
			if !alone {
				word = "clash"
			}
		}
		if word != "start" {
			if err := write(book, word, now(), word == "clash"); err != nil {
				return err
			}
		}
		select {
		case <-ends:
			return write(book, "stop", now(), true)
		case <-tick.C:
		}
	}
}

// write adds a line in one write.
func write(book *os.File, word string, at int64, sync bool) error {
	if _, err := fmt.Fprintf(book, "%s %d\n", word, at); err != nil {
		return err
	}
	if sync {
		return book.Sync()
	}
	return nil
}

// now is the time since the host was started, in nanoseconds.
func now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		fail(err)
	}
	return ts.Nano()
}
