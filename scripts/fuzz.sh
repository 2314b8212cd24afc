#!/usr/bin/env bash
# Runs every fuzz target for a while from the seed corpus that is kept in fuzz/corpus; what it finds on the way stays in target/.
#   scripts/fuzz.sh [SECONDS]      20 unless told
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"
seconds=${1:-20}

if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "fuzz: installing cargo-fuzz"
    cargo install cargo-fuzz --locked
fi

# Sanitizers are unstable options of the compiler: allow them in the one that builds everything else.
export RUSTC_BOOTSTRAP=1
targets=$(cargo fuzz list)
[[ -n $targets ]] || { echo "fuzz: no targets" >&2; exit 1; }
for target in $targets; do
    echo "fuzz: building $target"
    if ! cargo fuzz build "$target"; then
        echo "fuzz: $target does not build; libFuzzer needs a C++ compiler (g++) and the sanitizer runtime of rustc" >&2
        exit 1
    fi
done
for target in $targets; do
    seeds=$PWD/fuzz/corpus/$target
    [[ -n $(ls -A "$seeds" 2>/dev/null) ]] || { echo "fuzz: $seeds is empty" >&2; exit 1; }
    found=$PWD/target/fuzz-corpus/$target
    mkdir -p "$found"
    echo "fuzz: $target for $seconds s from $(ls "$seeds" | wc -l) seeds"
    # New inputs go into the first corpus.
    cargo fuzz run "$target" "$found" "$seeds" -- \
        -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1
done
echo "fuzz: all targets passed"
