#!/usr/bin/env bash
# Runs tests in a virtual machine with emulated SR-IOV cards: docs/lab.md.
#   scripts/lab.sh full [FILTER…]     every test, on the kernels of two Debian releases
#   scripts/lab.sh quick              the newer kernel alone
#   scripts/lab.sh shell [SUITE]      a shell in the machine, test programs and weir in /run/lab
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"
vm=hw-tests/vm
newer=trixie-backports
older=bookworm-backports

(($(id -u) == 0)) || { echo "lab: needs root: run \`make lab\`, which asks sudo for it" >&2; exit 1; }
mode=${1:-full}
shift || true

parts=$(mktemp -d "${TMPDIR:-/tmp}/weirlab-parts.XXXXXX")
trap 'rm -rf "$parts"' EXIT

# What is run in the machine, without what only a debugger reads.
build() {
    cargo build -q -p weir --bin weir
    local program
    program=$(cargo test -p weir-hw-tests --test devices --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\))$/\1/p')
    [[ -x $program ]] || { cargo test -p weir-hw-tests --test devices --no-run >&2; exit 1; }
    mkdir "$parts/tests"
    strip -o "$parts/tests/devices" "$program"
    strip -o "$parts/weir" target/debug/weir
}

# boot SUITE TIMEOUT NAME=VALUE…: one machine, with these in its environment.
boot() {
    local suite=$1 timeout=$2 started=$SECONDS
    shift 2
    printf 'export %q\n' "$@" "LIMIT=$((timeout - 30))" >"$parts/environment"
    echo "lab: booting the kernel of $suite"
    $vm/boot.sh --kernel "$suite" --timeout "$timeout" $vm/guest.sh "$parts/tests" "$parts/weir" "$parts/environment"
    echo "lab: the kernel of $suite: done in $((SECONDS - started)) seconds"
}

newer_modes=(WEIR_XDP_A=zero-copy WEIR_XDP_C=zero-copy)
older_modes=("WEIR_XDP_A=native copy" "WEIR_XDP_C=native copy")

build
case $mode in
quick)
    boot $newer ${WEIR_LAB_TIMEOUT:-280} "${newer_modes[@]}" "FILTER=$*"
    ;;
full)
    boot $newer 600 "${newer_modes[@]}" "FILTER=$*"
    boot $older 600 "${older_modes[@]}" "FILTER=$*"
    ;;
shell)
    exec $vm/boot.sh --kernel "${1:-$newer}" --shell $vm/guest.sh "$parts/tests" "$parts/weir"
    ;;
*)
    echo "lab: full, quick or shell, not $mode" >&2
    exit 2
    ;;
esac
