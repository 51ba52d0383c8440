package netbed

import (
	"bufio"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// sockets gives what a machine listens on off loopback: TCP, and UDP sockets that take from anybody.
func (b *bed) sockets(t *testing.T, i int) (tcp, udp []netip.AddrPort) {
	t.Helper()
	if err := b.space(i).do(func() error {
		for _, name := range []string{"tcp", "tcp6", "udp", "udp6"} {
			text, err := os.ReadFile("/proc/thread-self/net/" + name)
			if err != nil {
				return err
			}
			found, err := parseSockets(string(text), strings.HasPrefix(name, "tcp"))
			if err != nil {
				return err
			}
			if strings.HasPrefix(name, "tcp") {
				tcp = append(tcp, found...)
			} else {
				udp = append(udp, found...)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return tcp, udp
}

// parseSockets reads /proc/net/tcp and the like. Source: proc(5); the address is in words of the host's byte order, here little-endian.
func parseSockets(text string, tcp bool) (open []netip.AddrPort, err error) {
	state := "07" // of a UDP socket that is not connected
	if tcp {
		state = "0A" // listening
	}
	for n, line := range strings.Split(strings.TrimSpace(text), "\n") {
		f := strings.Fields(line)
		if n == 0 || len(f) < 4 || f[3] != state {
			continue
		}
		host, port, _ := strings.Cut(f[1], ":")
		raw, err := hex.DecodeString(host)
		p, err2 := strconv.ParseUint(port, 16, 16)
		if err != nil || err2 != nil {
			return nil, fmt.Errorf("socket %q makes no sense", line)
		}
		for w := 0; w+4 <= len(raw); w += 4 {
			slices.Reverse(raw[w : w+4])
		}
		addr, ok := netip.AddrFromSlice(raw)
		if !ok {
			return nil, fmt.Errorf("socket %q makes no sense", line)
		}
		if addr = addr.Unmap(); !addr.IsLoopback() {
			open = append(open, netip.AddrPortFrom(addr, uint16(p)))
		}
	}
	return open, nil
}

// TestParseSockets reads lines as the kernel writes them.
func TestParseSockets(t *testing.T) {
	text := `  sl  local_address rem_address   st tx_queue
   0: 0100007F:094B 00000000:0000 0A 0
   1: 0105400A:1E14 00000000:0000 0A 0
   2: 0105400A:1E14 0205400A:0001 01 0
   3: 00000000:0050 00000000:0000 0A 0
   4: 00000000000000000000000000000000:0051 0:0 0A 0
   5: 0000000000000000FFFF00000100007F:0052 0:0 0A 0`
	got, err := parseSockets(text, true)
	if want := "[10.64.5.1:7700 0.0.0.0:80 [::]:81]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("%v %v, want %s", got, err, want)
	}
}

// badge is a certificate with its key, and whose it is.
type badge struct {
	name string
	cert *tls.Certificate // nil: none
}

// badgeOf copies the certificate of a machine.
func (b *bed) badgeOf(t *testing.T, i int, name string) badge {
	t.Helper()
	dir := filepath.Join(b.at(i).dir, "trust")
	c, err := tls.LoadX509KeyPair(filepath.Join(dir, "machine.crt"), filepath.Join(dir, "machine.key"))
	if err != nil {
		t.Fatal(err)
	}
	return badge{name, &c}
}

// knock is one way to speak to a port.
type knock struct {
	name  string
	plain bool // without TLS
	badge badge
	max   uint16 // highest version of TLS; 0: any
	alpn  []string
	say   string
}

// The first words of HTTP/1.1 and HTTP/2.
const (
	sayHTTP = "GET %s HTTP/1.1\r\nHost: flota\r\nConnection: close\r\n\r\n"
	sayH2   = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
)

// try knocks on a port from a machine and gives all that comes back within two seconds, but for alerts of TLS.
func (b *bed) knock(t *testing.T, from int, to string, k knock) []byte {
	raw, err := b.dial(t.Context(), from, "tcp", to)
	if err != nil {
		return nil
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(2 * time.Second))
	conn := raw
	if !k.plain {
		c := &tls.Config{InsecureSkipVerify: true, MaxVersion: k.max, NextProtos: k.alpn} // a stranger does not care who answers
		if k.badge.cert != nil {
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return k.badge.cert, nil }
		}
		secure := tls.Client(raw, c)
		if secure.Handshake() != nil {
			return nil
		}
		conn = secure
	}
	if _, err := io.WriteString(conn, k.say); err != nil {
		return nil
	}
	got, _ := io.ReadAll(io.LimitReader(conn, 1<<16)) // up to what ends it
	if k.plain && len(got) > 0 && got[0] == 0x15 {    // the alert "this is no TLS"
		return nil
	}
	return got
}

// refusal reports whether an answer is an error of HTTP that a caller is to blame for.
func refusal(got []byte) bool {
	r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(string(got))), nil)
	if err != nil {
		return false
	}
	r.Body.Close()
	return r.StatusCode >= 400 && r.StatusCode < 500
}

// knocks gives every way for a bearer of a badge.
func knocks(who badge) (all []knock) {
	paths := []string{"/", "/v1/status", "/v1/machines", "/v1/store", "/v1/units", "/v1/watch", "/fleet/v1/machines", "/metrics", "/members", "/version", "/raft", "/v2/keys/"}
	for _, alpn := range [][]string{nil, {"http/1.1"}, {"h2"}, {"flota-join"}, {"flota-renew"}, {"nonsense"}, {"h2", "http/1.1", "flota-join"}} {
		for _, p := range paths {
			all = append(all, knock{name: who.name, badge: who, alpn: alpn, say: fmt.Sprintf(sayHTTP, p)})
		}
		all = append(all, knock{name: who.name, badge: who, alpn: alpn, say: sayH2})
	}
	return append(all, knock{name: who.name, badge: who, say: ""})
}

// TestNothingWithoutCertificate walks every port that any machine listens on off loopback: a machine without a certificate, with another cluster's,
// with a removed machine's, with TLS 1.2 or without TLS gets nothing from any of them. What a member may do shows that the walk can succeed.
func TestNothingWithoutCertificate(t *testing.T) {
	b := newCluster(t, 5, 4)
	b.found(t, 5) // a cluster of its own
	member, stranger := b.badgeOf(t, 2, "a member"), b.badgeOf(t, 5, "another cluster's")
	removed := b.badgeOf(t, 4, "a removed machine's")
	if got := b.knock(t, 5, b.at(1).addr+":7700", knock{badge: removed, say: fmt.Sprintf(sayHTTP, "/v1/status")}); !strings.HasPrefix(string(got), "HTTP/1.1 200") {
		t.Fatalf("before its machine is removed a certificate does not work: %q", got)
	}
	open := b.hold(t, 5, b.at(1).addr+":7700", removed)
	b.must(t, 1, "machine", "remove", "m4", "--force")
	select {
	case <-open:
	case <-time.After(5 * time.Second):
		t.Error("a removed machine's connection stays open")
	}
	b.Kill(t, 4)
	var all []knock
	for _, who := range []badge{{name: "no certificate"}, stranger, removed} {
		all = append(all, knocks(who)...)
	}
	all = append(all, knock{name: "plain", plain: true, say: fmt.Sprintf(sayHTTP, "/v1/status")}, knock{name: "plain", plain: true, say: sayH2},
		knock{name: "plain nonsense", plain: true, say: "\x00\x01nonsense\r\n\r\n"},
		knock{name: "TLS 1.2", badge: member, max: tls.VersionTLS12, say: fmt.Sprintf(sayHTTP, "/v1/status")},
		knock{name: "TLS 1.2, renewal", badge: member, max: tls.VersionTLS12, alpn: []string{"flota-renew"}, say: fmt.Sprintf(sayHTTP, "/v1/status")},
		knock{name: "TLS 1.2, join", max: tls.VersionTLS12, alpn: []string{"flota-join"}, say: fmt.Sprintf(sayHTTP, "/v1/status")})
	ports := 0
	for _, i := range []int{1, 2, 3} {
		tcp, udp := b.sockets(t, i)
		if len(udp) > 0 {
			t.Errorf("m%d takes datagrams from anybody at %v", i, udp)
		}
		for _, s := range tcp {
			ports++
			to := net.JoinHostPort(b.at(i).addr, strconv.Itoa(int(s.Port())))
			b.walk(t, 5, to, all)
			for port, path := range map[uint16]string{port: "/v1/status", peers: "/members"} {
				if s.Port() != port {
					continue
				}
				if got := b.knock(t, 5, to, knock{badge: member, say: fmt.Sprintf(sayHTTP, path)}); !strings.HasPrefix(string(got), "HTTP/1.1 200") {
					t.Errorf("a member gets nothing from %s either, so this walk proves nothing: %q", to, got)
				}
			}
		}
	}
	if ports < 6 { // the API and the store of three voters
		t.Errorf("only %d ports were walked", ports)
	}
}

// walk knocks on one port in all ways, eight at a time. The protocols to join and to renew may answer, with a refusal.
func (b *bed) walk(t *testing.T, from int, to string, all []knock) {
	t.Helper()
	var wg sync.WaitGroup
	turns := make(chan struct{}, 8)
	for _, k := range all {
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			got := b.knock(t, from, to, k)
			own := len(k.alpn) == 1 && strings.HasPrefix(k.alpn[0], "flota-")
			if len(got) > 0 && !(own && refusal(got)) {
				t.Errorf("%s with %s, ALPN %q, saying %.40q gets %.200q", to, k.name, k.alpn, k.say, got)
			}
		})
	}
	wg.Wait()
}

// hold opens a connection as a member and asks for the stream of events; the channel is closed when the other side ends it.
func (b *bed) hold(t *testing.T, from int, to string, who badge) <-chan struct{} {
	t.Helper()
	raw, err := b.dial(t.Context(), from, "tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*who.cert}})
	if _, err := fmt.Fprintf(conn, sayHTTP, "/v1/events?follow=true"); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 1)
	if _, err := io.ReadFull(conn, first); err != nil {
		t.Fatalf("the stream of events does not begin: %v", err)
	}
	ended := make(chan struct{})
	go func() { // ends with the connection
		_, _ = io.Copy(io.Discard, conn)
		close(ended)
	}()
	return ended
}
