package backup

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"math/bits"
	"os"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"google.golang.org/protobuf/proto"

	"flota/internal/fault"
	"flota/internal/store"
)

// Census says what the store held: enough to see whether a restored one holds the same.
type Census struct {
	Revision int64            `json:"revision"` // of the last change
	Keys     int64            `json:"keys"`
	Tables   map[string]int64 `json:"tables"` // number of keys by the prefix they lie under: flota/units/, user/, …
	Bytes    int64            `json:"bytes"`  // of keys and values
	// Hash is the sum modulo 2^256 of the SHA-256 of each key with its value, revisions and lease, in hex: it does not depend on the
	// order, so that it needs no sorting. It finds accidents; against forgery stands the seal.
	Hash string `json:"hash"`
}

// diff says how the restored store differs; "" when it does not.
func (c Census) diff(restored Census) string {
	var out []string
	names := maps.Clone(c.Tables)
	if names == nil {
		names = map[string]int64{}
	}
	maps.Copy(names, restored.Tables)
	for _, t := range slices.Sorted(maps.Keys(names)) {
		if c.Tables[t] != restored.Tables[t] {
			out = append(out, fmt.Sprintf("%d keys under %s instead of %d", restored.Tables[t], t, c.Tables[t]))
		}
	}
	if c.Keys != restored.Keys {
		out = append(out, fmt.Sprintf("%d keys in all instead of %d", restored.Keys, c.Keys))
	}
	if len(out) == 0 && (c.Hash != restored.Hash || c.Bytes != restored.Bytes) {
		out = append(out, "keys or values differ")
	}
	return strings.Join(out, ", ")
}

// counter makes a census key by key.
type counter struct {
	Census
	sum [4]uint64 // little end first
	buf []byte
}

func newCounter() *counter { return &counter{Census: Census{Tables: map[string]int64{}}} }

// add counts one key. An empty one is what a restore leaves as the mark of its raised revision; no read ever finds it.
func (c *counter) add(p *mvccpb.KeyValue) {
	if len(p.Key) == 0 {
		return
	}
	c.Keys++
	c.Bytes += int64(len(p.Key) + len(p.Value))
	c.Tables[table(string(p.Key))]++
	h := sha256.New()
	b := binary.BigEndian.AppendUint64(c.buf[:0], uint64(len(p.Key)))
	b = append(b, p.Key...)
	for _, n := range []int64{p.CreateRevision, p.ModRevision, p.Version, p.Lease} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	h.Write(b)
	h.Write(p.Value)
	sum := h.Sum(b[:0])
	c.buf = b
	var carry uint64
	for i := range c.sum {
		c.sum[i], carry = bits.Add64(c.sum[i], binary.LittleEndian.Uint64(sum[8*i:]), carry)
	}
}

func (c *counter) census() Census {
	var b []byte
	for _, n := range c.sum {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	c.Hash = hex.EncodeToString(b)
	return c.Census
}

// table gives the prefix that a key is counted under: a table of ours, the applications' keys, or "other".
func table(key string) string {
	first, rest, ok := strings.Cut(key, "/")
	switch {
	case ok && first+"/" == store.Prefix:
		if name, _, below := strings.Cut(rest, "/"); below {
			return store.Prefix + name + "/"
		}
		return key
	case ok && first == "user":
		return "user/"
	}
	return "other"
}

// keyBucket is where etcd's database keeps all revisions of all keys, sorted by revision. Source: etcd server/storage/schema.
var keyBucket = []byte("key")

// countFile makes the census of a snapshot of the store. It reads from the newest revision back, so that the first that it meets of a key is
// what holds; it remembers 16 bytes of each key's hash.
func countFile(f *os.File) (c Census, err error) {
	if _, err := f.Seek(0, 0); err != nil {
		return c, fault.Wrap(fault.Internal, err, "back up: read the snapshot")
	}
	// By its path under /proc: a file without a name is opened anew, as bolt closes what it opens.
	db, err := bolt.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		return c, fault.Wrap(fault.Internal, err, "back up: open the snapshot")
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(keyBucket)
		if b == nil {
			return fmt.Errorf("it holds no keys' table")
		}
		c, err = countBucket(b)
		return err
	})
	return c, fault.Wrap(fault.Internal, err, "back up: read the snapshot")
}

// revBytes is the length of a revision, and of one that marks a deletion, as a key of keyBucket.
const revBytes, deletedBytes = 17, 18

func countBucket(b *bolt.Bucket) (Census, error) {
	count := newCounter()
	type short [16]byte
	seen := map[short]struct{}{}
	cur := b.Cursor()
	for k, v := cur.Last(); k != nil; k, v = cur.Prev() {
		if len(k) != revBytes && len(k) != deletedBytes {
			return Census{}, fmt.Errorf("a revision of %d bytes", len(k))
		}
		if count.Revision == 0 {
			count.Revision = mvcc.BytesToRev(k).Main
		}
		var p mvccpb.KeyValue
		if err := proto.Unmarshal(v, &p); err != nil {
			return Census{}, err
		}
		full := sha256.Sum256(p.Key)
		id := short(full[:16])
		if _, older := seen[id]; older {
			continue
		}
		seen[id] = struct{}{}
		if !mvcc.IsTombstone(k) {
			count.add(&p)
		}
	}
	return count.census(), nil
}
