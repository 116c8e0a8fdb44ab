# `make` alone says what there is. Every target works on a machine that has nothing but make,
# git and a new enough Rust: what else it needs it installs first (scripts/setup), as root.

SHELL := /bin/bash
.DEFAULT_GOAL := help
# The fast tests come before the slow ones also under make -j; cargo is parallel by itself.
.NOTPARALLEL:

# Debian's OpenSSL, not one that is compiled here: that alone would take minutes.
export OPENSSL_NO_VENDOR = 1

# Tests that start Docker Engines, HAProxies and git servers. The pure ones lie in src.
ALL_TESTS := $(basename $(notdir $(wildcard tests/*.rs))) $(notdir $(patsubst %/main.rs,%,$(wildcard tests/*/main.rs)))
# Those that compute, and those that do little but wait, go beside the others. Those that count what
# a change costs don't: on a machine that is busy it costs more.
COMPUTING_TESTS := simulation
IDLE_TESTS := faults_git faults_manifests faults_secrets
SERVER_TESTS := $(filter-out $(COMPUTING_TESTS) $(IDLE_TESTS),$(ALL_TESTS))
# nextest is quicker for the many small ones. Those with servers share their engines within
# one process, so that nextest, which gives each test its own, would only slow them down.
NEXTEST := $(shell command -v cargo-nextest 2>/dev/null)

# The tests run as root. Where root has no cargo, that of the person who typed sudo is used, in a
# target folder of its own, so that theirs is left without files that belong to root.
ifeq ($(shell command -v cargo 2>/dev/null),)
ifneq ($(filter-out root,$(SUDO_USER)),)
builder_home := $(shell getent passwd "$(SUDO_USER)" | cut -d: -f6)
test test-fast test-servers bench-rollout: export PATH := $(builder_home)/.cargo/bin:$(PATH)
test test-fast test-servers bench-rollout: export RUSTUP_HOME := $(builder_home)/.rustup
test test-fast test-servers bench-rollout: export CARGO_TARGET_DIR := $(CURDIR)/target/as-root
endif
endif

.PHONY: help
help: ## say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1|/' | \
		awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

.PHONY: demo
demo: ## show the whole story on this machine: two hosts, a rollout, a repair (as root)
	@scripts/demo

.PHONY: demo-clean
demo-clean: ## remove everything that the demo made (as root)
	@scripts/demo-clean

.PHONY: build
build: ## compile target/debug/plimsoll
	@scripts/setup build
	cargo build --bin plimsoll

.PHONY: release
release: ## compile target/release/plimsoll, optimized
	@scripts/setup build
	cargo build --release --bin plimsoll
	@! grep -q PLIMSOLL_FAILPOINT "$${CARGO_TARGET_DIR:-target}/release/plimsoll" || { \
		echo "make: the binary has failpoints, which are for tests only" >&2; exit 1; }

.PHONY: check
check: ## formatting, lints, documentation, licences, scripts
	@scripts/setup build
	cargo fmt --all -- --check
	cargo clippy --bin plimsoll -- -D warnings
	cargo clippy --all-targets --features mutants -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
	@if command -v cargo-deny >/dev/null; then \
		echo "cargo deny check licenses bans sources"; \
		cargo deny --offline check licenses bans sources; \
	else echo "check: cargo-deny isn't installed, licences were not looked at"; fi
	@if command -v shellcheck >/dev/null; then \
		echo "shellcheck"; shellcheck -a $(filter-out scripts/lib,$(wildcard scripts/*)) .ci/run; \
	else echo "check: shellcheck isn't installed, the scripts were not looked at"; fi

.PHONY: test
test: test-setup test-fast test-servers ## all tests, the fast ones first (as root)

.PHONY: test-setup
test-setup:
	@scripts/setup test

.PHONY: test-fast
test-fast: ## the tests that need no server
	@scripts/setup build
	@echo "test: the fast tests, which need no server"
ifneq ($(NEXTEST),)
	cargo nextest run --lib --bins --examples
else
	cargo test --lib --bins --examples
endif
	cargo test --doc

# These tests mostly wait, for timeouts, health checks and drains: a machine with two cores runs
# one more than it would by itself.
RUST_TEST_THREADS ?= 3
test-servers: export RUST_TEST_THREADS := $(RUST_TEST_THREADS)

.PHONY: test-servers
test-servers: test-setup
	@[ "$$(id -u)" -eq 0 ] || { \
		echo "make: the tests with servers start Docker Engines of their own and need root: sudo make test" >&2; exit 1; }
	@echo "test: the tests with real engines, balancers and repositories: $(SERVER_TESTS)"
	cargo test --no-run $(addprefix --test ,$(ALL_TESTS))
	@echo "test: beside them $(COMPUTING_TESTS) $(IDLE_TESTS), whose words come at the end"
	@scripts/beside \
		"RUST_TEST_THREADS=$$(nproc) nice -n 19 cargo test $(addprefix --test ,$(COMPUTING_TESTS))" \
		"cargo test --no-fail-fast $(addprefix --test ,$(IDLE_TESTS))" \
		-- cargo test --no-fail-fast $(addprefix --test ,$(SERVER_TESTS))

SEEDS ?= 100000
SIM = target/soak/examples/plimsoll-sim
SIM_THREADS := $(shell nproc)

.PHONY: soak
soak: ## simulate for hours: SEEDS=100000 seeds, every two and three crashes, every deliberate bug
	@scripts/setup build
	cargo build --profile soak --example plimsoll-sim
	$(SIM) --runs $(SEEDS) --threads $(SIM_THREADS) --failures 5
	$(SIM) --scenario all --threads $(SIM_THREADS)
	$(SIM) --scenario all --depth 2 --threads $(SIM_THREADS)
	$(SIM) --scenario all --depth 3 --threads $(SIM_THREADS)
	cargo build --profile soak --features mutants --example plimsoll-sim
	$(SIM) --mutants --threads $(SIM_THREADS)

.PHONY: bench-rollout
bench-rollout: test-setup ## a rollout on two real engines, beside bare calls to them (as root)
	@[ "$$(id -u)" -eq 0 ] || { \
		echo "make: the engines that are measured are started here, which needs root: sudo make bench-rollout" >&2; exit 1; }
	cargo bench --bench rollout

.PHONY: bench-fleet
bench-fleet: ## measure 1,000 and 10,000 apps on engines that are stand-ins, some minutes
	@scripts/setup build
	cargo bench --bench fleet

.PHONY: bench
bench: ## measure the core: planning, reading, rendering, the store, with their bounds, some minutes
	@scripts/setup build
	cargo bench --bench core
	cargo bench --bench store
