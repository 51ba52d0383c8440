package ext

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// prefix is where the cluster's keys lie.
const prefix = "fleet-a/"

// kindVar chooses what the members are: "embedded" even where an etcd is installed.
const kindVar = "EXT_ETCD"

// apart is an etcd of three members that is not Flota's; each is a process of its own. Not for several goroutines.
type apart struct {
	program   string // of an etcd that is installed; "": this test's own, with the library
	specs     []member
	procs     []*exec.Cmd // nil: does not run
	cert, key string      // of whoever may use it
	raw       *clientv3.Client
}

// member is what one member is started with.
type member struct {
	Name, Dir, Client, Peer, All, Cert, Key, CA string
}

// memberVar has the test's own program run a member: its value is the member in JSON.
const memberVar = "EXT_MEMBER"

// newApart starts three members and waits until they answer; they are ended after the test.
func newApart(t *testing.T, base, dir string) *apart {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ca := newAuthority(t, dir)
	a := &apart{procs: make([]*exec.Cmd, 3)}
	if os.Getenv(kindVar) != "embedded" {
		a.program, _ = exec.LookPath("etcd")
	}
	var all, addrs []string
	for i := range 3 {
		addr := fmt.Sprintf("%s.%d", base, 201+i)
		m := member{Name: fmt.Sprintf("e%d", i+1), Client: "https://" + addr + ":2379", Peer: "https://" + addr + ":2380", CA: ca.file}
		m.Dir = filepath.Join(dir, m.Name)
		all, addrs = append(all, m.Name+"="+m.Peer), append(addrs, addr)
		a.specs = append(a.specs, m)
	}
	cert, key := ca.issue(t, "server", append(addrs, "127.0.0.1")...) // which members dial from, and etcd compares
	a.cert, a.key = ca.issue(t, "flota")
	for i := range a.specs {
		a.specs[i].Cert, a.specs[i].Key, a.specs[i].All = cert, key, strings.Join(all, ",")
	}
	t.Cleanup(func() { a.kill(0, 1, 2) })
	a.start(t, 0, 1, 2)
	a.dial(t)
	wait(t, "the etcd answers", a.answers)
	return a
}

// start starts members that do not run.
func (a *apart) start(t *testing.T, members ...int) {
	t.Helper()
	for _, i := range members {
		m := a.specs[i]
		cmd := exec.Command(a.program, "--name", m.Name, "--data-dir", m.Dir, "--listen-client-urls", m.Client, "--advertise-client-urls", m.Client,
			"--listen-peer-urls", m.Peer, "--initial-advertise-peer-urls", m.Peer, "--initial-cluster", m.All,
			"--cert-file", m.Cert, "--key-file", m.Key, "--trusted-ca-file", m.CA, "--client-cert-auth",
			"--peer-cert-file", m.Cert, "--peer-key-file", m.Key, "--peer-trusted-ca-file", m.CA, "--peer-client-cert-auth",
			"--max-request-bytes", "2097152")
		cmd.Env = []string{"PATH=/usr/bin:/bin"}
		if a.program == "" {
			spec, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			cmd = exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), memberVar+"="+string(spec))
		}
		log, err := os.OpenFile(m.Dir+".log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout, cmd.Stderr = log, log
		err = cmd.Start()
		log.Close()
		if err != nil {
			t.Fatal(err)
		}
		a.procs[i] = cmd
	}
}

// kill kills members, without a chance to say goodbye.
func (a *apart) kill(members ...int) {
	for _, i := range members {
		if cmd := a.procs[i]; cmd != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			a.procs[i] = nil
		}
	}
}

// dial makes the test's own client.
func (a *apart) dial(t *testing.T) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	info := transport.TLSInfo{TrustedCAFile: a.specs[0].CA}
	conf, err := info.ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	conf.Certificates = []tls.Certificate{pair}
	a.raw, err = clientv3.New(clientv3.Config{Endpoints: a.endpoints(), TLS: conf, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.raw.Close() })
}

// answers says why the etcd does not answer what needs a quorum; nil: it does.
func (a *apart) answers() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := a.raw.Get(ctx, "x")
	return err
}

// leads gives the member that leads the etcd.
func (a *apart) leads(t *testing.T) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for i, m := range a.specs {
		if s, err := a.raw.Status(ctx, m.Client); err == nil && s.Leader == s.Header.MemberId {
			return i
		}
	}
	t.Fatal("no member leads the etcd")
	return 0
}

// keys gives all keys.
func (a *apart) keys(t *testing.T) (keys []string) {
	t.Helper()
	got, err := a.raw.Get(t.Context(), "\x00", clientv3.WithFromKey(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range got.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}

func (a *apart) endpoints() (out []string) {
	for _, m := range a.specs {
		out = append(out, m.Client)
	}
	return out
}

// environ is what makes flota up use it.
func (a *apart) environ() []string {
	return []string{"FLOTA_STORE=" + strings.Join(a.endpoints(), ","), "FLOTA_STORE_CERT=" + a.cert, "FLOTA_STORE_KEY=" + a.key,
		"FLOTA_STORE_CA=" + a.specs[0].CA, "FLOTA_STORE_PREFIX=" + prefix}
}

// runMember is a member made of the library, until it is killed.
func runMember(spec string) int {
	var m member
	if err := json.Unmarshal([]byte(spec), &m); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	client, err1 := url.Parse(m.Client)
	peer, err2 := url.Parse(m.Peer)
	if err1 != nil || err2 != nil {
		fmt.Fprintln(os.Stderr, err1, err2)
		return 1
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir, cfg.InitialCluster, cfg.UnsafeNoFsync, cfg.LogLevel = m.Name, m.Dir, m.All, true, "warn"
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	cfg.ClientTLSInfo = transport.TLSInfo{CertFile: m.Cert, KeyFile: m.Key, TrustedCAFile: m.CA, ClientCertAuth: true}
	cfg.PeerTLSInfo = cfg.ClientTLSInfo
	cfg.MaxRequestBytes = 2 << 20
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer e.Close()
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	select {
	case <-end:
		return 0
	case err := <-e.Err():
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
}
