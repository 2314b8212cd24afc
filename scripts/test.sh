#!/usr/bin/env bash
# Runs every test of the workspace. Those that make network namespaces, sockets and XDP programs need root: without it, test programs
# are run through sudo, while the compiler is not.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"

if (($(id -u) != 0)); then
    command -v sudo >/dev/null || { echo "test: needs root or sudo" >&2; exit 1; }
    host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${host}_RUNNER=sudo -E"
fi
# The scenarios start the binary that this builds.
cargo build --workspace
cargo test --workspace --no-fail-fast "$@"
# Ports over DPDK are a feature of their own.
cargo test -p weir-dpdk --features link
cargo test -p weir-dataplane --features dpdk --lib io::dpdk
cargo test -p weir-dataplane --features dpdk --test dpdk --test dpdk_process
