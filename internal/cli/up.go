package cli

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"flota/internal/daemon"
	"flota/internal/driver/journal"
	"flota/internal/driver/process"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/quorum"
	"flota/internal/setting"
	"flota/internal/store/etcd"
	"flota/internal/trust"
)

// newUp is `flota up`: run this machine, in the foreground.
func (a *app) newUp() *cobra.Command {
	o := daemon.Options{Version: a.Version}
	var labels []string
	var ext external
	var memory, cpu, quota, level string
	c := &cobra.Command{
		Use:   "up",
		Short: "Run this machine, in the foreground",
		Long: `Run this machine as part of a cluster, in the foreground, until it is told to end (SIGTERM or ctrl-C).

Ending it leaves the machine's units running, as for an upgrade: started again within a minute it adopts them
and nothing moves. The first machine makes a cluster of its own; further ones join it with the command line that
flota token create prints there. What a machine was told when it joined it remembers: later, flota up is enough.
As a systemd service use Type=notify and KillMode=process.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := a.fromEnv(c.LocalNonPersistentFlags()); err != nil {
				return err
			}
			if err := a.fillUp(&o, labels, memory, cpu, quota, level); err != nil {
				return err
			}
			o.External = ext.options()
			ctx, stop := context.WithCancel(c.Context())
			defer stop()
			go hangups(ctx, o.Log)
			return a.Daemon(ctx, o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.DataDir, "data-dir", daemon.DefaultDataDir, "where everything of this machine lies")
	f.StringVar(&o.Name, "name", "", "name of this machine, unique in the cluster (default: the host's name)")
	f.StringVar(&o.Addr, "addr", "", "IP address that other machines reach this one by (default: the one that leads to them)")
	f.StringArrayVar(&labels, "label", nil, "k=v that units may ask for with MachineMetadata= (repeatable)")
	f.StringSliceVar(&o.Join, "join", nil, "IP:PORT,... of machines of the cluster to join; see flota token create")
	f.StringVar(&o.Token, "token", "", "join token")
	f.StringVar(&o.CAHash, "ca-hash", "", "sha256:HEX of the cluster's authority, by which this machine knows the cluster it joins")
	f.BoolVar(&o.Witness, "witness", false, "only vote, so that two other machines survive the loss of either; runs no units")
	f.DurationVar(&o.ReplaceAfter, "replace-after", quorum.DefaultReplace, "a voter that is away for so long loses its vote to another machine; the same on all machines")
	f.DurationVar(&o.CertLife, "cert-life", trust.Life, "how long the certificates hold that this machine issues")
	ext.flags(f)
	f.IntVar(&o.APIPort, "api-port", daemon.DefaultAPIPort, "port of the API, on --addr")
	f.IntVar(&o.PeerPort, "peer-port", daemon.DefaultPeerPort, "port of the store's peers, on --addr")
	f.StringVar(&o.KeysAddr, "keys-addr", daemon.DefaultKeysAddr, "IP:PORT of the applications' keys, an etcd to them; \"none\" serves none")
	f.BoolVar(&o.KeysAuth, "keys-auth", false, "callers of the applications' keys need a token (flota key token)")
	f.StringVar(&quota, "keys-quota", "512M", "how much all of the applications' keys may take; the same on all machines")
	f.DurationVar(&o.Lease, "lease", daemon.DefaultLease, "a machine is gone when it gave no sign of life for so long")
	f.DurationVar(&o.Renew, "renew", daemon.DefaultRenew, "how often this machine gives a sign of life")
	f.StringVar(&memory, "memory", "", "memory offered to units, such as 8G (default: the host's)")
	f.StringVar(&cpu, "cpu", "", "cores offered to units, such as 3.5 (default: the host's)")
	f.BoolVar(&o.Strict, "strict", false, "refuse units with restricting keys that cannot be honoured here")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	f.VisitAll(func(fl *pflag.Flag) { fl.Usage += " [" + variable(fl) + "]" })
	_ = f.MarkHidden("cert-life") // it is there; for tests
	return c
}

// external are the flags of a store of the user's own.
type external struct {
	etcd.ExternalOptions
}

// flags defines them.
func (e *external) flags(f *pflag.FlagSet) {
	f.StringSliceVar(&e.Endpoints, "store", nil, "https://IP:PORT,... of an etcd of your own to keep the cluster in; the same on all machines")
	f.StringVar(&e.Cert, "store-cert", "", "PEM file of the certificate to show to it")
	f.StringVar(&e.Key, "store-key", "", "PEM file of the certificate's key")
	f.StringVar(&e.CA, "store-ca", "", "PEM file of the authorities that it is known by")
	f.StringVar(&e.User, "store-user", "", "user name for it")
	f.StringVar(&e.Password, "store-password", "", "password for it; better given by the environment")
	f.StringVar(&e.Prefix, "store-prefix", "", "what all keys in it begin with, before flota/")
}

// options gives what was asked for; nil: the cluster's own store.
func (e *external) options() *etcd.ExternalOptions {
	if len(e.Endpoints) == 0 {
		return nil
	}
	return &e.ExternalOptions
}

// hangups takes SIGHUP until ctx ends. Service managers send it to have a configuration read anew, as fleetd did; there is none to
// read, and the machine goes on. It is caught rather than ignored, since ignored signals are inherited by children.
func hangups(ctx context.Context, log *slog.Logger) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	defer signal.Stop(signals)
	for {
		select {
		case <-signals:
			log.Info("SIGHUP: there is no configuration to read anew; going on")
		case <-ctx.Done():
			return
		}
	}
}

// variable is the environment variable that stands for a flag that is not given.
func variable(fl *pflag.Flag) string {
	return "FLOTA_" + strings.ToUpper(strings.ReplaceAll(fl.Name, "-", "_"))
}

// fromEnv sets flags that were not given from their variables. fault.Invalid for a value that the flag itself would not take.
func (a *app) fromEnv(f *pflag.FlagSet) (err error) {
	f.VisitAll(func(fl *pflag.Flag) {
		name := variable(fl)
		value := a.Getenv(name)
		if fl.Changed || value == "" || err != nil || fl.Name == "help" {
			return
		}
		if bad := f.Set(fl.Name, value); bad != nil {
			err = fault.Wrap(fault.Invalid, bad, "%s=%q", name, value)
		}
	})
	return err
}

// fillUp turns the words of the command line into options.
func (a *app) fillUp(o *daemon.Options, labels []string, memory, cpu, quota, level string) error {
	var lv slog.Level
	if err := lv.UnmarshalText([]byte(level)); err != nil {
		return fault.New(fault.Invalid, "log level %q: want debug, info, warn or error", level)
	}
	o.Log = slog.New(slog.NewTextHandler(a.Err, &slog.HandlerOptions{Level: lv}))
	var err error
	if o.Labels, err = pairs(labels, machine.ParseLabel); err != nil {
		return err
	}
	if o.KeysQuota, err = setting.Size(quota); err != nil {
		return fault.Wrap(fault.Invalid, err, "--keys-quota %s", quota)
	}
	if memory != "" {
		if o.Size.MemBytes, err = setting.Size(memory); err != nil {
			return fault.Wrap(fault.Invalid, err, "--memory %s", memory)
		}
	}
	if cpu != "" {
		cores, err := strconv.ParseFloat(cpu, 64)
		if err != nil || cores <= 0 || cores > 100_000 {
			return fault.New(fault.Invalid, "--cpu %s: want a number of cores above 0, such as 3.5", cpu)
		}
		o.Size.CPUMillis = int64(cores * 1000)
	}
	return nil
}

// pairs reads a list of "k=v".
func pairs(list []string, parse func(string) (string, string, error)) (map[string]string, error) {
	out := map[string]string{}
	for _, s := range list {
		for _, one := range strings.Split(s, ",") {
			k, v, err := parse(one)
			if err != nil {
				return nil, err
			}
			out[k] = v
		}
	}
	return maps.Clone(out), nil
}

// newSupervise is what an agent starts; a person never needs it.
func (a *app) newSupervise() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:    "supervise",
		Short:  "Own the processes of this machine's units (started by `flota up`)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return process.Supervise(c.Context(), dir, nil, journal.Options{})
		},
	}
	c.Flags().StringVar(&dir, "data-dir", daemon.DefaultDataDir, "the machine's data directory")
	return c
}
