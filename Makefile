# Everything a person or CI does with this repository. `make` alone lists the targets.

# RocksDB is C++ and costs twenty minutes of two cores. It is compiled through ccache, and the cache and
# cargo's target directory lie outside the repository, so that it is paid for once a machine: debug and
# release, another clone and a cleaned tree all find it there. A plain `cargo build` works too; it only
# pays by itself.
export CC := ccache gcc
export CXX := ccache g++
export CCACHE_DIR ?= $(HOME)/.cache/cribwork/ccache
export CCACHE_MAXSIZE ?= 5G
export CARGO_TARGET_DIR ?= $(HOME)/.cache/cribwork/target
export PATH := $(HOME)/.cargo/bin:$(PATH)

# Given to what a target runs: make demo ARGS="--nodes 5 --duration 30s"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup build demo test chaos verify fix bench sim mutants nightly fuzz

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: ## check for what the build needs; as root on Debian or Ubuntu, install what is missing
	@deploy/setup.sh

build: setup ## build the cribwork binary (release)
	cargo build --release -p cribwork-cli
	@echo "built $(CARGO_TARGET_DIR)/release/cribwork"

demo: build ## a cluster in one process that moves money and checks every cent (ARGS="--nodes 5 ...")
	$(CARGO_TARGET_DIR)/release/cribwork demo $(ARGS)

# Binaries first, with the very features that the tests are built with: the tests of real processes run
# the `cribwork` of the same profile.
test: setup ## all tests, those of real processes and of the simulator included
	cargo build --workspace --exclude cribwork-sim --bins --tests
	cargo test --workspace --exclude cribwork-sim $(ARGS)
	cargo test --profile sim -p cribwork-sim

# The simulator has bugs to put in, so nothing else is built together with it.
sim: setup ## simulated clusters with faults, by seed (ARGS="--seeds 1..101 --jobs 2")
	cargo run --profile sim -p cribwork-sim -- run $(or $(ARGS),--seeds 1..21 --jobs 2)

mutants: setup ## how many of the seeded bugs the simulator finds, and how soon
	cargo run --profile sim -p cribwork-sim -- mutants $(ARGS)

nightly: setup ## thousands of seeds and every seeded bug: hours; exit code 2 if anything is wrong (ARGS="--jobs 8")
	cargo run --profile sim -p cribwork-sim -- nightly $(ARGS)

chaos: setup ## faults on real processes under load, as root (ARGS="--duration 3m --kinds ..."; docs/chaos.md)
	@deploy/setup.sh chaos
	cargo build --release -p cribwork-cli
	cargo build --release -p cribwork-chaos
	$(CARGO_TARGET_DIR)/release/cribwork-chaos $(ARGS)

# The tests of the modules `fuzz`, built as `make test` builds them.
fuzz: setup ## hostile bytes for every decoder (ARGS="--duration 10m --target frames --jobs 2")
	cargo build --workspace --exclude cribwork-sim --bins --tests
	cargo run --quiet -p cribwork-xtask -- fuzz $(ARGS)

verify: setup ## read-only checks: format, lints, layering, tidiness, documentation
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo run --locked --quiet -p cribwork-xtask -- layering
	cargo run --locked --quiet -p cribwork-xtask -- seeded
	cargo run --locked --quiet -p cribwork-xtask -- tidy
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --workspace

fix: setup ## repair what a machine can: format, lints
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	cargo fmt --all

bench: setup ## criterion benchmarks, then one table (benches/peers/run.sh compares with etcd)
	cargo bench -p cribwork-benches $(ARGS)
	@cargo run --quiet -p cribwork-xtask -- bench-table
