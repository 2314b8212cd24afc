#!/usr/bin/env bash
# Runs tests in a virtual machine with emulated SR-IOV cards: docs/lab.md.
#   scripts/lab.sh full [FILTER…]     every test, on the kernels of two Debian releases, and a guest
#   scripts/lab.sh quick [FILTER…]    the newer kernel alone, and unless told the most telling tests
#   scripts/lab.sh older [FILTER…]    the older kernel alone
#   scripts/lab.sh program            a DPDK program as a hop alone
#   scripts/lab.sh guest              a guest as a hop alone
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

# What is run in the machine, without what only a debugger reads. WEIR_BIN names a weir that is built already.
build() {
    local program weir=${WEIR_BIN:-}
    # Ports on vfio-pci are driven by DPDK.
    scripts/ship/packages.sh dpdk-dev libdpdk-dev libclang-dev
    program=$(cargo test -p weir-hw-tests --test devices --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\))$/\1/p')
    [[ -x $program ]] || { cargo test -p weir-hw-tests --test devices --no-run >&2; exit 1; }
    if [[ -z $weir ]]; then
        weir=target/debug/weir
        cargo build -q -p weir --bin weir --features dpdk
    fi
    mkdir "$parts/tests"
    strip -o "$parts/tests/devices" "$program"
    strip -o "$parts/weir" "$weir"
    if [[ -z ${WEIR_BIN:-} ]]; then
        # Left as every other test expects it.
        cargo build -q -p weir --bin weir
    fi
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

# On this machine itself: a DPDK program behind weir, as it runs in a container.
program() {
    echo "lab: a DPDK program behind weir"
    WEIR_BIN=$parts/weir "$parts/tests/devices" --test-threads=1 memif::
}

# On this machine itself: a guest behind weir.
guest() {
    echo "lab: a guest behind weir"
    WEIR_BIN=$parts/weir WEIR_GUEST=$PWD/$vm/guest-in-the-wire.sh "$parts/tests/devices" --test-threads=1 guest::
}

# cards SUITE MODES… -- [FILTER…]: unless told, tests of network cards and of virtual functions, a fresh machine for each: the emulated one
# may stand still when a physical function is reset after everything else was done with it.
cards() {
    local suite=$1 modes=() filter
    shift
    while [[ $1 != -- ]]; do
        modes+=("$1")
        shift
    done
    shift
    if (($# > 0)); then
        boot "$suite" "${WEIR_LAB_TIMEOUT:-600}" "${modes[@]}" "FILTER=$*"
        return
    fi
    for filter in afxdp:: vfio::; do
        boot "$suite" "${WEIR_LAB_TIMEOUT:-400}" "${modes[@]}" "FILTER=$filter"
    done
}

newer_modes=(WEIR_XDP_A=zero-copy WEIR_XDP_C=zero-copy)
older_modes=("WEIR_XDP_A=native copy" "WEIR_XDP_C=native copy")

build
case $mode in
quick)
    program
    # On the kernel that is there already.
    WEIR_GUEST_KERNEL=$newer guest
    # The most telling ones unless told.
    (($# > 0)) || set -- frames_ weir_forwards after_sigkill
    boot $newer "${WEIR_LAB_TIMEOUT:-400}" "${newer_modes[@]}" "FILTER=$*"
    ;;
full)
    program
    cards $newer "${newer_modes[@]}" -- "$@"
    cards $older "${older_modes[@]}" -- "$@"
    guest
    ;;
older)
    cards $older "${older_modes[@]}" -- "$@"
    ;;
program)
    program
    ;;
guest)
    guest
    ;;
shell)
    exec $vm/boot.sh --kernel "${1:-$newer}" --shell $vm/guest.sh "$parts/tests" "$parts/weir"
    ;;
*)
    echo "lab: full, quick, older, program, guest or shell, not $mode" >&2
    exit 2
    ;;
esac
