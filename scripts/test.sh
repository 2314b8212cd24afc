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

log=$(mktemp)
trap 'rm -f "$log"' EXIT
if cargo test --workspace --no-fail-fast "$@" 2>&1 | tee "$log"; then
    exit 0
fi
# Scenarios are played by many processes in real time and may lose to a busy machine. What failed is run once more, one at a time; what
# fails again has failed, and what passes is named as unsteady.
mapfile -t failed < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log" | sort -u)
((${#failed[@]} > 0)) || { echo "test: a test program did not build or did not end" >&2; exit 1; }
((${#failed[@]} <= 3)) || { echo "test: ${#failed[@]} tests failed" >&2; exit 1; }
if grep -q 'process didn.t exit successfully' "$log"; then
    echo "test: a test program died" >&2
    exit 1
fi
echo "test: once more, one at a time: ${failed[*]}"
cargo test --workspace --no-fail-fast "$@" -- --exact --test-threads=1 "${failed[@]}"
echo "test: UNSTEADY, passed only at the second try: ${failed[*]}"
