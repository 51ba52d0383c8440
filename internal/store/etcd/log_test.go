package etcd

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

func TestLogBridge(t *testing.T) {
	var out bytes.Buffer
	h := slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
	log := zapOver(slog.New(h), zapcore.WriteThenPanic)
	for _, c := range []struct {
		write func()
		want  string
	}{
		{func() { log.Debug("too much") }, ""},
		{func() { log.Info("inner life", zap.Int("n", 1)) }, "level=DEBUG msg=\"inner life\" n=1\n"},
		{func() { log.With(zap.String("b", "2")).Warn("slow", zap.String("a", "1")) }, "level=WARN msg=slow a=1 b=2\n"},
		{func() { log.Error("broken", zap.Error(errors.New("why"))) }, "level=ERROR msg=broken error=why\n"},
		{func() { log.Error("cannot detect storage schema version: missing term information") }, "level=DEBUG msg=\"cannot detect storage schema version: missing term information\"\n"},
		{func() {
			defer func() { _ = recover() }()
			log.Fatal("the end")
			t.Error("fatal went on")
		}, "level=ERROR msg=\"the end\"\n"},
	} {
		out.Reset()
		c.write()
		if out.String() != c.want {
			t.Errorf("got %q, want %q", out.String(), c.want)
		}
	}
}
