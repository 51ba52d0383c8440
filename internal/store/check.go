package store

import "flota/internal/fault"

// MaxOps is how many conditions, and how many ops, one transaction may have. 100, so that it stays below etcd's own
// limit of 128 with room for the guard of a leader.
const MaxOps = 100

// MaxBytes is how large the keys and values of one transaction may be together: 1.5 MiB. Source: etcd's default for a
// request, above which a slow disk or network holds up the heartbeats of its leader.
const MaxBytes = 3 << 19

// Check says what is wrong with the transaction whatever the store holds: fault.Invalid for too many ops, too many
// bytes, an empty key, or a key that is changed twice. Every KV calls it before anything else.
func (t Txn) Check() error {
	if len(t.If) > MaxOps || len(t.Then) > MaxOps {
		return fault.New(fault.Invalid, "transaction of %d conditions and %d ops: at most %d of each", len(t.If), len(t.Then), MaxOps)
	}
	for _, c := range t.If {
		if c.Key == "" {
			return fault.New(fault.Invalid, "transaction with a condition on an empty key")
		}
	}
	bytes, seen := 0, make(map[string]bool, len(t.Then))
	for _, op := range t.Then {
		if op.Key == "" {
			return fault.New(fault.Invalid, "transaction with an op on an empty key")
		}
		if seen[op.Key] {
			return fault.New(fault.Invalid, "transaction that changes %q twice", op.Key)
		}
		seen[op.Key] = true
		bytes += len(op.Key) + len(op.Value)
	}
	if bytes > MaxBytes {
		return fault.New(fault.Invalid, "transaction of %d bytes, starting with key %q: at most %d", bytes, t.Then[0].Key, MaxBytes)
	}
	return nil
}
