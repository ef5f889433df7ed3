# The project's commands. `make` alone lists them.
#
#   make demo SECONDS=20     both jobs on generated logins and a generated shop, each a process; without SECONDS until Ctrl-C
#   make test                all tests that need no services, under 5 minutes once built
#
# Everything is built into one target folder outside the checkout, which further checkouts share: the native parts (RocksDB,
# librdkafka) are compiled once. CARGO_TARGET_DIR chooses another one.

cache := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/dataflow
export CARGO_TARGET_DIR ?= $(cache)/target
export CARGO_TERM_PROGRESS_WHEN ?= auto

PREFIX ?= $(HOME)/.local
# make's own SECONDS only: a shell that exports its counter must not end the demo.
ifneq ($(origin SECONDS),command line)
SECONDS :=
endif
E2E_ARGS ?=
BENCH_ARGS ?=
SIM_SEEDS ?= 5000
LAKE_SEEDS ?= 1000
NIGHTLY_SEEDS ?= 50000
NIGHTLY_LAKE_SEEDS ?= 10000

binary = $(CARGO_TARGET_DIR)/debug/dataflow
deny = $(or $(shell PATH="$(cache)/tools/bin:$$PATH" command -v cargo-deny),)

.PHONY: help setup build-notice demo test sim planted install e2e bench bench-components bench-compare nightly lint fmt deny tidy

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: ## installs what a build needs through apt, if it is missing (E2E=1: what e2e needs too)
	@scripts/setup $(if $(E2E),e2e,build)

build-notice: setup
	@ls -d "$(CARGO_TARGET_DIR)"/debug/.fingerprint/librocksdb-sys-* >/dev/null 2>&1 || \
	  echo "building for the first time into $(CARGO_TARGET_DIR): 20 minutes and more on two cores, most of it RocksDB and librdkafka; later builds take seconds"

demo: build-notice ## both jobs side by side on generated input (SECONDS=20: for so long; PORT=: of the first page, the other is the next)
	cargo build --package dataflow-cli
	cargo build --package dataflow-jobs --bins
	@scripts/demo "$(dir $(binary))" "$(SECONDS)" "$(PORT)"

test: build-notice ## all tests that need no services
	cargo test --workspace

sim: build-notice ## whole jobs under a seeded scheduler, with every fault there is; says how many a second and what they met (SIM_SEEDS=5000 LAKE_SEEDS=1000)
	DATAFLOW_SIM_SEEDS=$(SIM_SEEDS) DATAFLOW_SIM_LAKE_SEEDS=$(LAKE_SEEDS) \
	  cargo test --workspace --test seeds -- --nocapture --test-threads 1 equals_the_oracle

planted: build-notice ## each deliberate bug is caught by its test
	cargo test --package dataflow-sim --features planted-bugs --test planted

install: build-notice ## puts the commands `dataflow` and `loadgen` into PREFIX/bin (default: ~/.local)
	cargo build --package dataflow-cli
	cargo build --package dataflow-loadgen
	install -D -m 755 "$(binary)" "$(DESTDIR)$(PREFIX)/bin/dataflow"
	install -D -m 755 "$(dir $(binary))loadgen" "$(DESTDIR)$(PREFIX)/bin/loadgen"
	@echo "installed $(DESTDIR)$(PREFIX)/bin/dataflow and $(DESTDIR)$(PREFIX)/bin/loadgen"

e2e: ## the shipped binary against real Kafka, killed at random (E2E_ARGS="--events 6000 --kills 4")
	@$(MAKE) --no-print-directory build-notice E2E=1
	compose/e2e/run $(E2E_ARGS)

bench: ## ours beside Flink and Kafka Streams, release profile: throughput, latency, recovery, large state (BENCH_ARGS="throughput --events 1000000"; --help)
	@scripts/setup bench
	bench/run $(BENCH_ARGS)

bench-components: build-notice ## what the parts on a login's way cost, each alone (FILTER=avro)
	bench/run components $(FILTER)

bench-compare: ## what got worse by more than 10 % between two result files (A=old.json B=new.json)
	@bench/run compare "$(A)" "$(B)"

nightly: ## what is too long for each change: many simulation seeds, long crash runs (NIGHTLY_SEEDS=)
	@$(MAKE) --no-print-directory build-notice E2E=1
	@$(MAKE) --no-print-directory sim SIM_SEEDS=$(NIGHTLY_SEEDS) LAKE_SEEDS=$(NIGHTLY_LAKE_SEEDS)
	compose/e2e/run harness
	compose/e2e/run connectors
	compose/e2e/run crashes --events 200000 --kills 60 --broker-kills 12
	compose/e2e/run two_processes --events 20000
	compose/e2e/run registry_outage --events 20000 --outage 32
	compose/e2e/run hard_broker --events 20000
	compose/e2e/run lakehouse --kills 60
	compose/e2e/run lakehouse_days --kills 30
	compose/e2e/run lakehouse_foreign --kills 30
	compose/e2e/run lakehouse_kafka
	compose/e2e/run lakehouse_stack --seconds 900 --kills 100 --faults
	compose/e2e/run objects
	compose/e2e/run lakehouse_watch

lint: build-notice fmt deny tidy ## formatting, clippy without a warning, licences, the project's own rules
	cargo clippy --workspace --all-targets -- --deny warnings

fmt:
	cargo fmt --all --check

# The advisory database lives on a host that not every build machine reaches: it is no part of the check.
deny:
	@if [ -n "$(deny)" ]; then \
	  echo "cargo deny: licences, bans, sources (advisories are not checked)"; "$(deny)" --all-features check licenses bans sources; \
	else \
	  echo "cargo deny: skipped, it is not installed (.ci/run installs it; or: cargo install --locked cargo-deny)"; \
	fi

tidy:
	cargo test --package dataflow-tidy
