# What a person types. Everything works on a fresh Debian 12 with Rust; `make setup` installs what is missing.

# Rust may have been installed by rustup in this very session.
export PATH := $(HOME)/.cargo/bin:$(PATH)

# The lab makes network namespaces.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E)
# Seconds for each fuzz target.
FUZZ_SECONDS ?= 20

.PHONY: help setup build release deb demo test unit fuzz lint image ship lab lab-quick
.PHONY: bench bench-quick bench-wire bench-dpdk bench-instructions bench-bless bench-peers bench-pages

help: ## Show what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 26

setup: ## Install missing Debian packages, check the Rust compiler
	@scripts/setup.sh

build: setup ## Build everything for development and tests
	cargo build --workspace

release: setup ## Build the optimised binary, target/release/weir
	cargo build --release --bin weir

deb: setup ## Build the Debian package and prove it: lintian, install, upgrade, purge, a booted systemd (needs root or sudo)
	$(SUDO) scripts/ship/deb.sh
	$(SUDO) scripts/ship/systemd.sh

demo: build ## Watch two sites talk through two weirs (needs root or sudo)
	$(SUDO) target/debug/demo

test: setup ## Run all tests: unit, property, whole engine, real sockets, fuzz (needs root or sudo)
	scripts/test.sh
	scripts/fuzz.sh $(FUZZ_SECONDS)

unit: setup ## Run the tests that need no privilege
	cargo test --workspace --exclude weir-hw-tests

fuzz: setup ## Run every fuzz target for FUZZ_SECONDS
	scripts/fuzz.sh $(FUZZ_SECONDS)

bench: setup ## Measure everything beside DPDK and Open vSwitch, under 15 minutes (needs root or sudo)
	@scripts/bench.sh full

bench-quick: setup ## Measure the engine alone, two minutes
	@scripts/bench.sh quick

bench-wire: setup ## Measure packets over veth beside the kernel and testpmd, two to four minutes (needs root or sudo)
	@scripts/bench.sh wire

bench-dpdk: setup ## Measure weir over DPDK devices beside testpmd and Open vSwitch, three minutes (needs root or sudo)
	@scripts/bench.sh dpdk

bench-instructions: setup ## Count instructions a packet, and compare them with the baseline
	@scripts/bench.sh instructions

bench-bless: setup ## Make today's instruction counts the baseline
	@scripts/bench.sh bless

bench-peers: ## Install the packet engines that weir is compared with
	@scripts/bench.sh peers

bench-pages: setup ## Write the figures of docs/benchmarks/ into the pages that show them
	@scripts/bench.sh pages

image: setup ## Build the container image: target/image/weir-small.oci.tar
	scripts/image.sh small

ship: setup ## Build and prove what weir is shipped in: image, manifests, packages (needs root or sudo)
	scripts/ship.sh

lab: setup ## Test on emulated network cards in a virtual machine: zero-copy, VFs, a guest behind weir (needs root or sudo)
	$(SUDO) scripts/lab.sh full

lab-quick: setup ## The most telling of these tests, on one kernel
	$(SUDO) scripts/lab.sh quick

lint: setup ## Check format, clippy and documentation
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy -p weir-dpdk -p weir-dataplane -p weir --features weir-dataplane/dpdk,weir/dpdk --all-targets -- -D warnings
	cargo check --manifest-path fuzz/Cargo.toml --target-dir target/fuzz-check
	RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps
