package keys

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// The load that BenchmarkLoad puts on each side.
const (
	loadClients = 100
	loadKeys    = 1000
	loadWatches = 5000
	loadTime    = time.Minute     // on each side; 6 s with -short
	loadTurn    = 2 * time.Second // until it is another side's turn, so that all meet the same moods of the machine
)

// BenchmarkLoad puts 100 clients, which write and read values of 256 bytes, on three machines of the real binary and on three members of a bare etcd in turns: for
// version 3 an etcd of the same version, for version 2 Debian's etcd 3.4. It reports operations per second and how many times those of the bare
// one we reach. Then it tells what 5,000 idle watches cost the machine that they hang on. One run takes about six minutes.
func BenchmarkLoad(b *testing.B) {
	b.Run("idle-watches", func(b *testing.B) { oneRun(b, func() { startDev(b, 4).idleWatches(b) }) })
	b.Run("v3", func(b *testing.B) { oneRun(b, func() { loadV3(b, startDev(b, 4)) }) })
	b.Run("v2", func(b *testing.B) { oneRun(b, func() { loadV2(b, startDev(b, 3)) }) })
}

// oneRun is for what needs no more turns than one.
func oneRun(b *testing.B, run func()) {
	for i := range b.N {
		if i == 0 {
			run()
		}
	}
	b.ReportMetric(0, "ns/op")
}

func loadV3(b *testing.B, dev *devCluster) {
	bare, pids := startBare(b)
	compete(b, []side{
		{name: "bare", do: clientsV3(b, bare), pids: pids},
		{name: "front", do: clientsV3(b, dev.keys[:3]), pids: dev.pids(b)},
		{name: "without-member", do: clientsV3(b, dev.keys[3:]), pids: dev.pids(b)},
	})
}

func loadV2(b *testing.B, dev *devCluster) {
	old, pids := startOld(b)
	compete(b, []side{
		{name: "etcd-3.4", do: clientsV2(b, old), pids: pids},
		{name: "front", do: clientsV2(b, dev.keys[:3]), pids: dev.pids(b)},
	})
}

// side is one that load is put on; do has client i carry out its nth operation.
type side struct {
	name string
	do   func(i, n int) error
	pids []int // of its servers
	done int
	took time.Duration
	cpu  time.Duration // that its servers took
}

// compete gives each side its turns, and reports.
func compete(b *testing.B, sides []side) {
	whole := loadTime
	if testing.Short() {
		whole /= 10
	}
	for i := range sides {
		sides[i].turn(b, loadTurn/4) // nobody is measured cold
		sides[i].done, sides[i].took, sides[i].cpu = 0, 0, 0
	}
	for round := 0; sides[0].took < whole; round++ {
		for i := range sides {
			sides[(round+i)%len(sides)].turn(b, loadTurn)
		}
	}
	rate := func(s side) float64 { return float64(s.done) / s.took.Seconds() }
	for i, s := range sides {
		b.ReportMetric(rate(s), s.name+"/s")
		b.ReportMetric(float64(s.cpu.Microseconds())/float64(s.done), s.name+"-cpu-µs/op")
		if i > 0 {
			b.ReportMetric(rate(s)/rate(sides[0]), s.name+":"+sides[0].name)
		}
	}
}

// turn lets all clients work for a while.
func (s *side) turn(b *testing.B, d time.Duration) {
	b.Helper()
	began, before := time.Now(), cpuOf(b, s.pids)
	var done atomic.Int64
	var all sync.WaitGroup
	for i := range loadClients {
		all.Go(func() {
			for n := 0; time.Since(began) < d; n++ {
				if err := s.do(i, n); err != nil {
					b.Errorf("%s: %v", s.name, err)
					return
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	s.done += int(done.Load())
	s.took += time.Since(began)
	s.cpu += cpuOf(b, s.pids) - before
}

// cpuOf gives the processor time that processes have taken, which other work on the machine disturbs less than what they get done.
func cpuOf(b *testing.B, pids []int) (sum time.Duration) {
	b.Helper()
	const tick = time.Second / 100 // Source: USER_HZ
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			b.Fatal(err)
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		for _, f := range fields[11:13] { // in user mode, in the kernel
			n, _ := strconv.Atoi(f)
			sum += time.Duration(n) * tick
		}
	}
	return sum
}

// clientsV3 makes clients, spread over addrs, that write and read in turns.
func clientsV3(b *testing.B, addrs []string) func(i, n int) error {
	clients, value := make([]*clientv3.Client, loadClients), strings.Repeat("v", 256)
	for i := range clients {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{addrs[i%len(addrs)]}, Logger: zap.NewNop()})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Close() })
		clients[i] = c
	}
	return func(i, n int) (err error) {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		key := "/load/" + strconv.Itoa(rand.IntN(loadKeys))
		if n%2 == 0 {
			_, err = clients[i].Put(ctx, key, value)
		} else {
			_, err = clients[i].Get(ctx, key)
		}
		return err
	}
}

// writesV2 are the kinds of writes that clients of version 2 make in turns.
var writesV2 = []string{"", "?prevExist=true", "?ttl=600"}

// clientsV2 is clientsV3 for version 2.
func clientsV2(b *testing.B, addrs []string) func(i, n int) error {
	tr := &http.Transport{MaxIdleConnsPerHost: loadClients}
	b.Cleanup(tr.CloseIdleConnections)
	c, value := &http.Client{Transport: tr, Timeout: 30 * time.Second}, url.Values{"value": {strings.Repeat("v", 256)}}.Encode()
	ask := func(method, url, body string) error {
		req, err := http.NewRequest(method, url, strings.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := c.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode >= 300 {
			return fmt.Errorf("%s %s: %s, %w", method, url, resp.Status, err)
		}
		return nil
	}
	for i := range loadKeys {
		if err := ask(http.MethodPut, fmt.Sprintf("http://%s/v2/keys/load/%d", addrs[0], i), value); err != nil {
			b.Fatal(err)
		}
	}
	return func(i, n int) error {
		at := fmt.Sprintf("http://%s/v2/keys/load/%d", addrs[i%len(addrs)], rand.IntN(loadKeys))
		if n%2 == 1 {
			return ask(http.MethodGet, at, "")
		}
		return ask(http.MethodPut, at+writesV2[n/2%len(writesV2)], value)
	}
}

// devCluster is machines of the real binary.
type devCluster struct {
	dir  string
	keys []string // where machine N serves keys
}

// startDev builds the binary and starts n machines, of which the first three hold the store.
func startDev(b *testing.B, n int) *devCluster {
	b.Helper()
	dir, err := os.MkdirTemp("", "fl") // sockets' paths must be short
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	flota, base := filepath.Join(dir, "flota"), fmt.Sprintf("127.%d.%d", 64+rand.IntN(100), rand.IntN(250))
	d := &devCluster{dir: filepath.Join(dir, "c")}
	run := func(args ...string) {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "FLOTA_DEV_DIR="+d.dir, "FLOTA_CONFIG="+filepath.Join(dir, "config.json"))
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Errorf("%v: %v\n%s", args, err, out)
		}
	}
	run("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", flota, "flota/cmd/flota")
	b.Cleanup(func() { run(flota, "dev", "down") })
	run(flota, "dev", "up", "--detach", "--base", base, "-n", strconv.Itoa(n))
	if b.Failed() {
		b.FailNow()
	}
	for i := range n {
		d.keys = append(d.keys, fmt.Sprintf("%s.%d:2379", base, i+1))
	}
	return d
}

// pids gives the processes of all machines' agents.
func (d *devCluster) pids(b *testing.B) (all []int) {
	b.Helper()
	for n := range d.keys {
		text, err := os.ReadFile(filepath.Join(d.dir, fmt.Sprint("m", n+1), "agent.pid"))
		if err != nil {
			b.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, pid)
	}
	return all
}

// memory gives what the agent of machine n takes, in bytes.
func (d *devCluster) memory(b *testing.B, n int) int {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.pids(b)[n-1]))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	var kib int
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		b.Fatal(err)
	}
	return kib << 10
}

// idleWatches has every client hold its part of the watches, of keys of their own that never change: first at machine 2, with a member, then at machine 4, without.
func (d *devCluster) idleWatches(b *testing.B) {
	for n, name := range map[int]string{2: "voter", 4: "without-member"} {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		before := d.memory(b, n)
		for i := range loadClients {
			c, err := clientv3.New(clientv3.Config{Endpoints: []string{d.keys[n-1]}, Logger: zap.NewNop()})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = c.Close() })
			for j := range loadWatches / loadClients {
				if r := <-c.Watch(ctx, fmt.Sprintf("/idle/%d/%d", i, j), clientv3.WithCreatedNotify()); r.Err() != nil {
					b.Fatal(r.Err())
				}
			}
		}
		b.ReportMetric(float64(d.memory(b, n)-before)/1e6, name+"-MB")
	}
}

// ports gives addresses that nobody listens on.
func ports(b *testing.B, n int) (addrs []string) {
	for range n {
		addrs = append(addrs, freeAddr(b))
	}
	return addrs
}

// startBare runs three members of an etcd of the version that is embedded, as processes of their own, and gives their addresses.
func startBare(b *testing.B) (addrs []string, pids []int) {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	return startThree(b, func(name, dir, client, peer, cluster string) *exec.Cmd {
		cmd := exec.Command(self, "-test.run", "^TestBareMember$", "-test.timeout", "0")
		cmd.Env = append(os.Environ(), bareEnv+"="+strings.Join([]string{name, dir, client, peer, cluster}, " "))
		return cmd
	})
}

// startOld is startBare for Debian's etcd 3.4 with its API of version 2.
func startOld(b *testing.B) (addrs []string, pids []int) {
	bin, err := exec.LookPath("etcd")
	if err != nil {
		b.Skip("etcd 3.4 is not installed: scripts/setup does that")
	}
	return startThree(b, func(name, dir, client, peer, cluster string) *exec.Cmd {
		cmd := exec.Command(bin, "--enable-v2", "--name", name, "--data-dir", dir, "--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
			"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer, "--initial-cluster", cluster, "--log-level", "error")
		cmd.Env = append(os.Environ(), "ETCD_UNSUPPORTED_ARCH=")
		return cmd
	})
}

// startThree starts three members with what member makes, and waits until all of them answer.
func startThree(b *testing.B, member func(name, dir, client, peer, cluster string) *exec.Cmd) (addrs []string, pids []int) {
	clients, peers, cluster := ports(b, 3), ports(b, 3), []string{}
	for i, p := range peers {
		cluster = append(cluster, fmt.Sprintf("m%d=http://%s", i, p))
	}
	for i := range peers {
		cmd := member(fmt.Sprint("m", i), filepath.Join(b.TempDir(), "data"), clients[i], peers[i], strings.Join(cluster, ","))
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		pids = append(pids, cmd.Process.Pid)
		b.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
	for _, addr := range clients {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, Logger: zap.NewNop()})
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		for err = net.ErrClosed; err != nil && ctx.Err() == nil; {
			_, err = c.Get(ctx, "ready")
		}
		cancel()
		_ = c.Close()
		if err != nil {
			b.Fatalf("%s does not answer: %v", addr, err)
		}
	}
	return clients, pids
}

// bareEnv makes TestBareMember one member of a bare etcd: name, directory, address for clients, address for members, all members.
const bareEnv = "FLOTA_TEST_BARE"

// TestBareMember is no test: it is a member of a bare etcd, in a process of its own, until it is killed.
func TestBareMember(t *testing.T) {
	args := strings.Fields(os.Getenv(bareEnv))
	if len(args) != 5 {
		t.Skip("run by BenchmarkLoad")
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir, cfg.InitialCluster, cfg.LogLevel = args[0], args[1], args[4], "error"
	client, peer := []url.URL{{Scheme: "http", Host: args[2]}}, []url.URL{{Scheme: "http", Host: args[3]}}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls, cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = client, client, peer, peer
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Fatal(<-e.Err())
}
