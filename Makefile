# What a person types. Everything works on a fresh Debian 12 with Rust; `make setup` installs what is missing.

# Rust may have been installed by rustup in this very session.
export PATH := $(HOME)/.cargo/bin:$(PATH)

# The lab makes network namespaces.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E)
# Seconds for each fuzz target.
FUZZ_SECONDS ?= 20

.PHONY: help setup build release demo test unit fuzz bench lint

help: ## Show what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: ## Install missing Debian packages, check the Rust compiler
	@scripts/setup.sh

build: setup ## Build everything for development and tests
	cargo build --workspace

release: setup ## Build the optimised binary, target/release/weir
	cargo build --release --bin weir

demo: build ## Watch two sites talk through two weirs (needs root or sudo)
	$(SUDO) target/debug/demo

test: setup ## Run all tests: unit, property, whole engine, real sockets, fuzz (needs root or sudo)
	scripts/test.sh
	scripts/fuzz.sh $(FUZZ_SECONDS)

unit: setup ## Run the tests that need no privilege
	cargo test --workspace --exclude weir-hw-tests

fuzz: setup ## Run every fuzz target for FUZZ_SECONDS
	scripts/fuzz.sh $(FUZZ_SECONDS)

bench: setup ## Measure the engine in memory
	cargo run --release -p weir-bench -- pipeline

lint: setup ## Check format, clippy and documentation
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps
