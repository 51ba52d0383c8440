// Builds fleetctl v1.0.0 from its own source, for TestRealFleetctl. fleet had no go.mod: these are versions of its time that build today.
module fleetctl

go 1.26.0

require (
	github.com/coreos/etcd v3.3.27+incompatible
	github.com/coreos/fleet v1.0.0
	github.com/coreos/go-semver v0.2.0
	github.com/coreos/go-systemd v0.0.0-20180511133405-39ca1b05acc7
	github.com/godbus/dbus v4.1.0+incompatible
	github.com/gogo/protobuf v1.0.0
	github.com/golang/protobuf v1.2.0
	github.com/inconshreveable/mousetrap v1.0.0
	github.com/jonboulle/clockwork v0.1.0
	github.com/matttproud/golang_protobuf_extensions v1.0.1
	github.com/pborman/uuid v1.2.0
	github.com/prometheus/client_golang v0.8.0
	github.com/spf13/cobra v0.0.1
	github.com/spf13/pflag v1.0.0
	github.com/vishvananda/netlink v1.0.0
	google.golang.org/api v0.1.0
	google.golang.org/grpc v1.17.0
)

require (
	github.com/json-iterator/go v1.1.12 // indirect
	github.com/modern-go/reflect2 v1.0.2 // indirect
	github.com/vishvananda/netns v0.0.5 // indirect
	golang.org/x/crypto v0.58.0 // indirect
)
