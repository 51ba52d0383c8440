package process_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"flota/internal/driver/process"
)

// act makes this binary a service that does as its words say, in order:
//
//	say=TEXT       prints it          notify=TEXT    sends it to $NOTIFY_SOCKET ("|" is a line end)
//	child=A,B      starts itself with those words and goes on; $CHILD in later words is its PID
//	pidfile=PATH   writes the own PID into it (the child does)      until=PATH   waits until the file exists
//	term=TEXT      from now on prints TEXT at SIGTERM and goes on   exit=N       ends
//	sleep          for ever           fence=DIR,MS   fences that data directory again and again
func act(words []string) {
	child := ""
	for _, w := range words {
		verb, arg, _ := strings.Cut(strings.ReplaceAll(w, "$CHILD", child), "=")
		switch verb {
		case "say":
			fmt.Println(arg)
		case "notify":
			conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
			check(err)
			_, err = conn.Write([]byte(strings.ReplaceAll(arg, "|", "\n")))
			check(err)
			conn.Close()
		case "child":
			cmd := exec.Command(os.Args[0], append([]string{"act"}, strings.Split(arg, ",")...)...)
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
			check(cmd.Start())
			child = strconv.Itoa(cmd.Process.Pid)
		case "pidfile":
			check(os.WriteFile(arg+".new", []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644))
			check(os.Rename(arg+".new", arg))
		case "until":
			for {
				if _, err := os.Stat(arg); err == nil {
					break
				}
				time.Sleep(5 * time.Millisecond)
			}
		case "term":
			c := make(chan os.Signal, 1)
			signal.Notify(c, syscall.SIGTERM)
			go func() {
				for range c {
					fmt.Println(arg)
				}
			}()
		case "exit":
			n, err := strconv.Atoi(arg)
			check(err)
			os.Exit(n)
		case "sleep":
			time.Sleep(1e6 * time.Second)
		case "fence":
			dir, ms, _ := strings.Cut(arg, ",")
			n, err := strconv.Atoi(ms)
			check(err)
			d, err := process.Open(context.Background(), process.Options{DataDir: dir})
			check(err)
			for first := true; ; first = false {
				check(d.Fence(context.Background(), time.Duration(n)*time.Millisecond))
				if first {
					fmt.Println("fencing")
				}
				time.Sleep(time.Duration(n) * time.Millisecond / 10)
			}
		default:
			check(fmt.Errorf("no such word: %s", w))
		}
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(99)
	}
}
