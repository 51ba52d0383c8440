# Every target only names commands that also work by hand.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
GO      ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: up down build test bench lint soak soak-join long setup

## up: build, start three machines on this host, run examples/hello on them, say what to try next
up: build
	@scripts/up

## down: end what `make up` started and leave nothing behind
down:
	@if [ -x bin/flota ]; then bin/flota dev down; else echo "nothing was built, so nothing runs"; fi

## build: bin/flota, static and stripped, and the examples
build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/flota ./cmd/flota
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o bin/hello ./examples/hello
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o bin/reconfigure ./examples/reconfigure

## test: install what the tests need, then lint and test with the race detector
test: setup lint
	$(GO) test -race -timeout 25m ./...

## setup: Debian packages that the tests run (real services, the C compiler of the race detector)
setup:
	@scripts/setup

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "run gofmt -w on these"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	GOARCH=arm64 CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/flota

## bench: the benchmarks that ARCHITECTURE.md quotes
bench:
	$(GO) test -run '^$$' -bench . -benchmem -timeout 40m ./internal/scheduler ./internal/store/... ./internal/unit ./internal/keys/...
	$(GO) test -run '^$$' -bench . -timeout 20m ./cmd/flota
	scripts/measure

## soak: random cluster histories on virtual time until stopped
soak:
	$(GO) test ./internal/sim -run TestSoak -soak -timeout 0 -v

## soak-join: the same for crowds of machines that join
soak-join:
	$(GO) test ./internal/sim/join -run Soak -soak -timeout 0 -v

## long: the promises of a cluster on real networks at full length, about an hour: partitions, 20 power cuts of all, renewals
long:
	$(GO) test ./internal/e2e/net -timeout 3h -v -long
