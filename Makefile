# make            build the programs into bin/
# make demo       the main job on this machine, narrated (root; no container runtime needed)
# make test       everything: unit, script, integration on this kernel, guests with cgroup v2, e2e with containerd
# make help       all targets

PREFIX  ?= /usr
DESTDIR ?=
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X main.version=$(VERSION)
PROGRAMS := arbiterd arbiterctl memleak

export CGO_ENABLED := 0

.PHONY: all
all: $(PROGRAMS:%=bin/%)

# go build knows better than make what has changed.
.PHONY: $(PROGRAMS:%=bin/%)
$(PROGRAMS:%=bin/%):
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/$(@F)

.PHONY: demo
demo: all
	@$(GO) run ./tests/demo

# Every suite runs through tests/run, which prints the tests' output, and
# fails on a skip that this kernel does not explain.
.PHONY: test test-unit test-integration test-guest test-guest-all test-e2e
test: test-unit test-integration test-guest test-e2e

.PHONY: deps
deps:
	@tests/deps

test-unit: deps
	$(GO) vet ./...
	$(GO) run ./tests/run -- -p 1 ./policy/... ./cri/... ./cmd/... ./arbiter/... ./tests/script/... ./tests/run ./tests/guest ./tests/shipped

test-integration: all deps
	$(GO) run ./tests/run -- -count=1 ./tests/integration/...

# A guest has no compilers.
.PHONY: debuggees
debuggees: deps
	$(GO) test -count=1 -run TestBuildDebuggees ./arbiter/dump

test-guest: all
	$(GO) run ./tests/guest -suite ci

test-guest-all: all debuggees
	$(GO) run ./tests/guest -suite all

test-e2e: all
	$(MAKE) -C tests/e2e test

.PHONY: bench fuzz lint
bench: all
	$(GO) test -run '^$$' -bench . -benchmem ./policy/...
	$(GO) test -count=1 -timeout 30m -v ./tests/bench/...
	$(GO) test -run '^$$' -bench Idle -benchtime 1x -timeout 30m ./tests/integration

FUZZTIME ?= 1m
fuzz:
	@set -e; for f in $$(grep -rlE '^func Fuzz' --include='*_test.go' policy cri arbiter); do \
		for t in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' $$f); do \
			echo "== $$t in $$(dirname $$f)"; \
			$(GO) test -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x ./$$(dirname $$f); \
		done; \
	done

GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
lint:
	$(GO) vet ./...
	$(GO) run $(GOLANGCI) run ./...
	cd tests/e2e && $(GO) run $(GOLANGCI) run ./...

.PHONY: install
install: all
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/sbin bin/arbiterd
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/bin bin/arbiterctl bin/memleak
	install -D -m 0644 -t $(DESTDIR)/etc/arbiter etc/arbiter.toml
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/lib/arbiter/policy.d etc/policy.d/*.toml
	install -d -m 0755 $(DESTDIR)/etc/arbiter/policy.d
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/doc/arbiter/examples etc/examples/policy/*.toml
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/doc/arbiter etc/policy-reference.md etc/policy.schema.json
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/arbiter/prometheus etc/prometheus/arbiter.rules.yaml
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/arbiter/grafana etc/grafana/arbiter.json
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/man/man5 etc/man/arbiter-policy.5
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system systemd/arbiterd.service
	bin/arbiterctl man --dir $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	bin/arbiterctl completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/arbiterctl

# nfpm makes both packages of what `make install` would install.
NFPM := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.41.1
.PHONY: package
package: all
	rm -rf dist/root
	$(MAKE) install DESTDIR=dist/root
	for p in deb rpm; do VERSION=$(VERSION:v%=%) $(GO) run $(NFPM) package --config etc/package/nfpm.yaml --packager $$p --target dist/ || exit 1; done

.PHONY: clean help
clean:
	rm -rf bin .cache dist

help:
	@echo 'make            build bin/arbiterd, bin/arbiterctl, bin/memleak'
	@echo 'make demo       hold, resume and kill a leaking process on this machine'
	@echo 'make test       all of test-unit test-integration test-guest test-e2e'
	@echo 'make test-guest-all   more kernels and more rounds'
	@echo 'make bench fuzz lint install clean'
