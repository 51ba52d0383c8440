package etcd

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// noise is what etcd warns of in the normal life of a small cluster: it becomes Debug. Peers that are away show in
// Health; errors of calls are given to the caller.
var noise = []string{
	"cannot detect storage schema version: missing term information", // a fresh member
	"setting up serving from embedded etcd failed",                   // each Close
	"Running http and grpc server on single port",                    // it listens for peers only
	"simple token is not cryptographically signed",                   // etcd's users are not used
	"retrying of unary invoker failed",
	"prober detected unhealthy status",
	"prober found high clock drift",
	"lost TCP streaming connection with remote peer",
	"dropped internal Raft message since sending buffer is full",
	"failed to reach the peer URL",
	"failed to publish local member to cluster through raft",
	"apply request took too long",
	"waiting for ReadIndex response took too long, retrying",
	"failed to monitor file descriptor usage",
	"failed to apply request", // the caller gets the error
	"request stats",           // of a slow request
	"closed TCP streaming connection with remote peer",
	"failed to find remote peer in cluster",
	"failed to get version",
	"leadership transfer failed",
	// Of members that come and go.
	"Failed to detect schema version",
	"failed to update storage version",
	"failed to update cluster version",
	"peer became inactive",
	"rejected stream from remote peer because it was removed",
	"rejected Raft message from removed member",
	"failed to process Raft message",
	"server has stopped; skipping GoAttach",
	"stopped publish because server is stopping",
	"server error", // it was removed: Node.Removed says so
	"data-dir used by this member must be removed",
	"Validation on configuration change failed", // the caller gets the error
	"failed to promote a member",
	"bootstrap failed", // Start gives the error, and is called again
	"failed to get downgrade enabled status",
	"failed to parse cluster version of remote member",
	"rejecting promote learner",
}

// zapOver gives a zap logger that writes to log. etcd's Info is our Debug: it tells of its inner life. What
// etcd calls fatal, or a reason to panic, goes to last, which must not return, instead of ending the process.
func zapOver(log *slog.Logger, last zapcore.CheckWriteHook) *zap.Logger {
	return zap.New(&core{log: log}, zap.WithFatalHook(last), zap.WithPanicHook(last))
}

// core is a zapcore.Core over slog.
type core struct {
	log    *slog.Logger
	fields []zapcore.Field
}

func slogLevel(l zapcore.Level) slog.Level {
	switch {
	case l < zapcore.InfoLevel:
		return slog.LevelDebug - 4
	case l < zapcore.WarnLevel:
		return slog.LevelDebug
	case l < zapcore.ErrorLevel:
		return slog.LevelWarn
	}
	return slog.LevelError
}

// Enabled implements zapcore.Core.
func (c *core) Enabled(l zapcore.Level) bool {
	return c.log.Enabled(context.Background(), slogLevel(l))
}

// With implements zapcore.Core.
func (c *core) With(f []zapcore.Field) zapcore.Core {
	return &core{log: c.log, fields: append(slices.Clip(c.fields), f...)}
}

// Check implements zapcore.Core.
func (c *core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write implements zapcore.Core.
func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := slogLevel(e.Level)
	if e.Level < zapcore.DPanicLevel && slices.ContainsFunc(noise, func(n string) bool { return strings.HasPrefix(e.Message, n) }) {
		level = slog.LevelDebug
	}
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range c.fields {
		f.AddTo(enc)
	}
	for _, f := range fields {
		f.AddTo(enc)
	}
	attrs := make([]slog.Attr, 0, len(enc.Fields))
	for k, v := range enc.Fields {
		attrs = append(attrs, slog.Any(k, v))
	}
	slices.SortFunc(attrs, func(a, b slog.Attr) int {
		if a.Key < b.Key {
			return -1
		}
		return 1
	})
	c.log.LogAttrs(context.Background(), level, e.Message, attrs...)
	return nil
}

// Sync implements zapcore.Core.
func (c *core) Sync() error { return nil }
