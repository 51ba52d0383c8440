package daemon

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A witness gives processor time, of which it needs hardly any, for memory, of which it is promised to need little (40 MB): it collects its garbage
// when that is a fifth of what lives, instead of as much, and gives what it does not need back to the host every now and then.
const (
	witnessGC   = 20
	witnessFree = time.Minute
)

// giveBack gives memory back to the host until ctx ends; a first time soon, as starting needs more than living.
func giveBack(ctx context.Context) error {
	for wait := witnessFree / 6; ; wait = witnessFree {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
			debug.FreeOSMemory()
			dropProgram()
		}
	}
}

// dropProgram gives the pages of the program itself back: most were needed once, to start. Only parts of it of which nothing was ever written are
// touched, so that the kernel brings what is needed again out of the program's file without a trace. What cannot be given back stays.
func dropProgram() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	var from, to uintptr // of the part that is being read; 0: not of the program
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) >= 2 && strings.Contains(fields[0], "-"): // from-to rights offset device inode path
			from, to = 0, 0
			if len(fields) == 6 && fields[5] == exe && !strings.Contains(fields[1], "w") {
				_, _ = fmt.Sscanf(fields[0], "%x-%x", &from, &to) // what cannot be read is left alone
			}
		case len(fields) == 3 && fields[0] == "Anonymous:" && fields[1] == "0" && from != 0 && to > from:
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED)
		}
	}
}
