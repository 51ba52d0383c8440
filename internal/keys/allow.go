package keys

// kind says what a method may do here.
type kind int

const (
	read   kind = iota + 1 // changes nothing, so it may be repeated
	write                  // changes keys or leases
	open                   // says nothing about keys; needs no token
	stream                 // a stream; its messages are looked at one by one
)

// allowed is every method that applications may call. What is not in it is refused, also what a later version of etcd adds: Snapshot gives the
// whole database, Hash and HashKV digests of it, Defragment stops a member, Compact cuts every watch in the cluster, Alarm, Downgrade,
// MoveLeader and the changes of members and of etcd's own users are the cluster's business.
var allowed = map[string]kind{
	"/etcdserverpb.KV/Range":              read,
	"/etcdserverpb.KV/RangeStream":        stream,
	"/etcdserverpb.KV/Put":                write,
	"/etcdserverpb.KV/DeleteRange":        write,
	"/etcdserverpb.KV/Txn":                write,
	"/etcdserverpb.Watch/Watch":           stream,
	"/etcdserverpb.Lease/LeaseGrant":      write,
	"/etcdserverpb.Lease/LeaseRevoke":     write,
	"/etcdserverpb.Lease/LeaseKeepAlive":  stream,
	"/etcdserverpb.Lease/LeaseTimeToLive": read,
	"/etcdserverpb.Lease/LeaseLeases":     read,
	"/etcdserverpb.Cluster/MemberList":    open,
	"/etcdserverpb.Maintenance/Status":    open,
	"/etcdserverpb.Auth/AuthStatus":       open,
	"/etcdserverpb.Auth/Authenticate":     open,
	"/grpc.health.v1.Health/Check":        open,
	"/grpc.health.v1.Health/Watch":        stream,
	"/v3lockpb.Lock/Lock":                 write,
	"/v3lockpb.Lock/Unlock":               write,
	"/v3electionpb.Election/Campaign":     write,
	"/v3electionpb.Election/Proclaim":     write,
	"/v3electionpb.Election/Leader":       read,
	"/v3electionpb.Election/Observe":      stream,
	"/v3electionpb.Election/Resign":       write,
}

// why says more about some refusals than that they are refusals.
var why = map[string]string{
	"/etcdserverpb.KV/Compact":             "the cluster compacts its history by itself",
	"/etcdserverpb.Maintenance/Snapshot":   "the database holds more than the applications' keys; export them with: flota key export",
	"/etcdserverpb.Maintenance/Defragment": "the cluster looks after its disk by itself",
}
