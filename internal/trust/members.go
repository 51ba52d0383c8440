package trust

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"sync"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
)

// goneFor is how long a removed machine is remembered. Source: removed/<id> is kept for as long; four times the life of a certificate.
const goneFor = 30 * 24 * time.Hour

// maxGone bounds the removed machines that are remembered on disk; the oldest are forgotten first. 10,000: 0.6 MB.
const maxGone = 10_000

// Members is which machines belong to the cluster, as far as this machine knows, and which connections to them are open. While the machine
// table is followed, a machine has to stand in it; while it cannot be, as when this machine has just started, only machines that are
// remembered as removed are refused: otherwise the loss of the quorum would cut every connection. Safe for concurrent use.
type Members struct {
	disk disk
	log  *slog.Logger
	now  func() time.Time

	writing sync.Mutex // one write of the file at a time; taken before mu

	mu    sync.Mutex // guards the fields below
	live  bool       // known is followed now
	known map[machine.ID]string
	gone  map[machine.ID]time.Time
	saved map[machine.ID]time.Time // gone, as it lies on disk
	conns map[machine.ID]map[*tracked]struct{}
}

// tracked is one open connection.
type tracked struct {
	conn io.Closer
	key  string
}

// NewMembers gives the members as remembered in Options.Dir. A damaged file is reported to the log and made anew: it is only a memory for the
// time until the store is reached.
func NewMembers(o Options) *Members {
	o = o.filled()
	m := &Members{disk: disk{dir: o.Dir, fault: o.fault}, log: o.Log, now: o.Now, conns: map[machine.ID]map[*tracked]struct{}{}}
	text, err := m.disk.read(membersFile)
	if err == nil {
		m.gone, err = parseGone(text)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.log.Warn("the remembered members are lost; removed machines are known again when the store is reached", "file", m.disk.path(membersFile), "err", err)
	}
	if m.gone == nil {
		m.gone = map[machine.ID]time.Time{}
	}
	m.saved = maps.Clone(m.gone)
	return m
}

// memory is members.json.
type memory struct {
	Removed map[machine.ID]time.Time `json:"removed"` // when each was
}

// parseGone reads members.json. fault.Invalid.
func parseGone(text []byte) (map[machine.ID]time.Time, error) {
	var r memory
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "read the members")
	}
	for id := range r.Removed {
		if _, err := machine.ParseID(string(id)); err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "read the members")
		}
	}
	return r.Removed, nil
}

// Check says whether a machine that proved to hold key (hex, as Peer.Key) belongs to the cluster. fault.Denied.
func (m *Members) Check(id machine.ID, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.check(id, key)
}

// check does it under mu.
func (m *Members) check(id machine.ID, key string) error {
	want, known := m.known[id]
	at, removed := m.gone[id]
	switch {
	case m.live && known && want != "" && want != key:
		return fault.New(fault.Denied, "machine %s has another key than the one it was admitted with", id.Short())
	case m.live && known:
		return nil
	case removed:
		return removedError(id, at)
	case m.live:
		return fault.New(fault.Denied, "machine %s does not stand in the machine table", id.Short())
	}
	return nil
}

// removedError refuses a removed machine.
func removedError(id machine.ID, at time.Time) error {
	return fault.New(fault.Denied, "machine %s was removed from the cluster (known since %s)", id.Short(), at.UTC().Format(time.RFC3339))
}

// checkRemoved refuses machines that were removed, and no other. fault.Denied.
func (m *Members) checkRemoved(id machine.ID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.known[id]; m.live && known {
		return nil
	}
	if at, removed := m.gone[id]; removed {
		return removedError(id, at)
	}
	return nil
}

// knows says whether the machine table is followed and has id with key.
func (m *Members) knows(id machine.ID, key string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.live && key != "" && m.known[id] == key
}

// Track registers an open connection to a machine that proved to hold key: conn is closed when the machine is removed. release is to be called
// once when the connection has ended. fault.Denied: the machine was removed since the handshake looked; the caller closes conn.
func (m *Members) Track(id machine.ID, key string, conn io.Closer) (release func(), err error) {
	t := &tracked{conn: conn, key: key}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(id, key); err != nil {
		return nil, err
	}
	if m.conns[id] == nil {
		m.conns[id] = map[*tracked]struct{}{}
	}
	m.conns[id][t] = struct{}{}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.conns[id], t)
		if len(m.conns[id]) == 0 {
			delete(m.conns, id)
		}
	}, nil
}

// Away says that the machine table is not followed any more; what was known of removed machines stays.
func (m *Members) Away() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.live = false
}

// Live says what stands in the tables machines/ (ID to key) and removed/ (ID to time), and that they are followed. A machine that left the
// first is taken for removed. Connections of machines that do not belong any more are closed. The error is of the memory on disk alone; the
// next Live or Save tries it again.
func (m *Members) Live(known map[machine.ID]string, removed map[machine.ID]time.Time) error {
	for _, c := range m.replace(known, removed) {
		_ = c.Close() // nobody waits for it
	}
	return m.Save()
}

// replace takes the new tables and gives the connections to close.
func (m *Members) replace(known map[machine.ID]string, removed map[machine.ID]time.Time) (cut []io.Closer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	gone := map[machine.ID]time.Time{}
	add := func(id machine.ID, at time.Time) {
		if _, is := known[id]; !is && now.Sub(at) < goneFor {
			gone[id] = at
		}
	}
	for id := range m.known { // those of them that are in known stay known
		add(id, now)
	}
	for id, at := range m.gone {
		add(id, at)
	}
	for id, at := range removed {
		add(id, at)
	}
	forgetOldest(gone)
	m.live, m.known, m.gone = true, maps.Clone(known), gone
	for id, conns := range m.conns {
		for t := range conns {
			if m.check(id, t.key) != nil {
				cut = append(cut, t.conn)
				delete(conns, t)
			}
		}
	}
	return cut
}

// forgetOldest leaves at most maxGone machines.
func forgetOldest(gone map[machine.ID]time.Time) {
	for len(gone) > maxGone {
		var oldest machine.ID
		for id, at := range gone {
			if oldest == "" || at.Before(gone[oldest]) {
				oldest = id
			}
		}
		delete(gone, oldest)
	}
}

// Save stores the memory of removed machines, if it changed since it was stored.
func (m *Members) Save() error {
	m.writing.Lock()
	defer m.writing.Unlock()
	m.mu.Lock()
	gone, same := m.gone, maps.EqualFunc(m.gone, m.saved, time.Time.Equal)
	m.mu.Unlock()
	if same {
		return nil
	}
	text, err := json.Marshal(memory{Removed: gone})
	if err == nil {
		err = m.disk.write(membersFile, append(text, '\n'), 0o644)
	}
	if err != nil {
		return fault.Wrap(fault.Internal, err, "remember the removed machines")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saved = gone
	return nil
}
