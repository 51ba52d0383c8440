// Package store is what the cluster remembers. Store below is the whole keyspace on one page: one typed table per kind of
// thing, each with its one writer. Beneath it lies KV, a small interface with two implementations (store/etcd, store/mem) that pass
// one conformance suite (store/storetest); the simulation rests on that.
//
// The invariants: every key has exactly one writer; every write is one transaction that is safe to repeat; everything that
// the leader writes is guarded by its election key, so that a leader that lost the election writes nothing more.
// Nothing polls: readers list once and watch from there (Follow).
//
// Start reading at Store, then Table, Follow and Campaign.
package store

import (
	"flota/internal/keys/token"
	"flota/internal/machine"
	jointoken "flota/internal/trust/token"
	"flota/internal/unit"
)

// Prefix is where Flota's own keys lie; the applications' keys lie outside of it.
const Prefix = "flota/"

// leaderKey is held by the leader under its lease; its value is the leader's machine ID.
const leaderKey = Prefix + "leader"

// Store is every kind of thing the cluster remembers. This struct is the whole keyspace.
type Store struct {
	KV KV

	Machines Table[machine.Machine]  // machines/<id>             written by api; kept until removed
	Alive    Table[machine.Presence] // alive/<id>                written by that machine's agent; dies with its lease
	Units    Table[unit.Unit]        // units/<name>              written by api; kept until destroyed
	Places   Table[unit.Place]       // places/<machine>/<unit>   written by the leader only
	States   Table[unit.State]       // states/<machine>/<unit>   written by that machine's agent; dies with its lease
	Tokens   Table[token.Token]      // keytokens/<id>            written by api; kept until revoked, or some time after its expiry
	Names    Table[machine.ID]       // names/<machine's name>    written by api with machines/: no two machines have one name
	Joins    Table[jointoken.Token]  // tokens/<id>               written by api; kept until revoked, used up or expired
	Removed  Table[machine.Gone]     // removed/<id>              written by api; kept 30 days
	Voters   Table[machine.Vote]     // voters/<machine>          written by the steward (room voter) on the leading machine
	Cluster  Table[machine.Cluster]  // cluster/this              written by api; made by the first machine
}

// New lays the tables over kv.
func New(kv KV) *Store {
	return &Store{
		KV:       kv,
		Machines: Table[machine.Machine]{kv: kv, prefix: Prefix + "machines/"},
		Alive:    Table[machine.Presence]{kv: kv, prefix: Prefix + "alive/"},
		Units:    Table[unit.Unit]{kv: kv, prefix: Prefix + "units/"},
		Places:   Table[unit.Place]{kv: kv, prefix: Prefix + "places/"},
		States:   Table[unit.State]{kv: kv, prefix: Prefix + "states/"},
		Tokens:   Table[token.Token]{kv: kv, prefix: Prefix + "keytokens/"},
		Names:    Table[machine.ID]{kv: kv, prefix: Prefix + "names/"},
		Joins:    Table[jointoken.Token]{kv: kv, prefix: Prefix + "tokens/"},
		Removed:  Table[machine.Gone]{kv: kv, prefix: Prefix + "removed/"},
		Voters:   Table[machine.Vote]{kv: kv, prefix: Prefix + "voters/"},
		Cluster:  Table[machine.Cluster]{kv: kv, prefix: Prefix + "cluster/"},
	}
}

// ThisCluster is the one key of the table Cluster.
const ThisCluster = "this"

// PlaceKey is the key of a place or a state below its table's prefix.
func PlaceKey(m machine.ID, u unit.Name) string { return string(m) + "/" + string(u) }
