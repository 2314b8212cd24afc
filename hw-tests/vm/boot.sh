#!/usr/bin/env bash
# Boots a virtual machine with emulated SR-IOV hardware, runs a script in it as root, and ends with its exit code. The script sees
# this machine's files, and may change its own copy of them.
#   boot.sh [--kernel SUITE] [--timeout SECONDS] SCRIPT [FILE…]    FILEs are put beside the script, into /run/lab
#   boot.sh [--kernel SUITE] --shell [FILE…]                       a shell on the console instead
#
# The machine's network cards, by PCI address:
#   0000:01:00.0  an Intel 82576 (igb) with 7 virtual functions to be had    ─┐ one wire
#   0000:02:00.0  virtio-net                                                 ─┘
#   0000:03:00.0  virtio-net behind the IOMMU                                ─┐ another
#   0000:04:00.0  virtio-net                                                 ─┘
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)
lab_cache=$repository/target/lab
. "$here/packages.sh"
. "$here/kernel.sh"
. "$here/qemu.sh"

kernel=trixie-backports
timeout=300
shell=0
while (($# > 0)); do
    case $1 in
    --kernel) kernel=$2; shift 2 ;;
    --timeout) timeout=$2; shift 2 ;;
    --shell) shell=1; shift ;;
    *) break ;;
    esac
done
((shell == 1 || $# > 0)) || lab_fail "usage: boot.sh [--kernel SUITE] [--timeout SECONDS] SCRIPT [FILE…] | --shell"
(($(id -u) == 0)) || lab_fail "needs root, to show root's files to the machine"

lab_prepare "$kernel"
run=$(mktemp -d "${TMPDIR:-/tmp}/weirvm-$$.XXXXXX")
qemu_pid=
cleanup() {
    [[ -z $qemu_pid ]] || kill "$qemu_pid" 2>/dev/null || true
    rm -rf "$run"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
mkdir "$run/lab"
lab_initramfs "$run/initramfs" "$here/init"
if ((shell == 0)); then
    cp "$1" "$run/lab/guest"
    shift
fi
(($# == 0)) || cp -r "$@" "$run/lab/"

# Nobody boots from them.
virtio=disable-legacy=on,romfile=
arguments=(
    -M q35,kernel-irqchip=split -cpu max -smp 2 -m "${WEIR_LAB_MEMORY:-2048}"
    -accel "${WEIR_LAB_ACCEL:-tcg,thread=multi}"
    -nodefaults -display none -no-reboot
    -device intel-iommu,intremap=on,caching-mode=on,device-iotlb=on,aw-bits=48
    -device pcie-root-port,id=rp1,chassis=1,slot=1,bus=pcie.0,addr=0x10
    -device pcie-root-port,id=rp2,chassis=2,slot=2,bus=pcie.0,addr=0x11
    -device pcie-root-port,id=rp3,chassis=3,slot=3,bus=pcie.0,addr=0x12
    -device pcie-root-port,id=rp4,chassis=4,slot=4,bus=pcie.0,addr=0x13
    # A third port that nobody listens to keeps a card that takes nothing from holding up the one that sends, as on a real wire.
    -netdev hubport,hubid=1,id=nowhere1 -netdev hubport,hubid=2,id=nowhere2
    -netdev hubport,hubid=1,id=n1 -device igb,netdev=n1,bus=rp1,romfile=,mac=52:54:00:00:01:01
    -netdev hubport,hubid=1,id=n2 -device virtio-net-pci,netdev=n2,bus=rp2,$virtio,mac=52:54:00:00:01:02
    -netdev hubport,hubid=2,id=n3
    # Zero-copy asks for addresses that the IOMMU translates, and for frames as they were on the wire.
    -device "virtio-net-pci,netdev=n3,bus=rp3,$virtio,mac=52:54:00:00:02:01,iommu_platform=on,ats=on,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off,guest_csum=off"
    -netdev hubport,hubid=2,id=n4 -device virtio-net-pci,netdev=n4,bus=rp4,$virtio,mac=52:54:00:00:02:02
    -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap
    -virtfs "local,path=$run/lab,mount_tag=run,security_model=none"
    -kernel "$kernel_image" -initrd "$run/initramfs"
)
# On a busy host the check whether the timer ticks is over before it did.
append="console=ttyS0 panic=1 quiet no_timer_check intel_iommu=on iommu=pt weir.modules=$kernel_directory/lib/modules"

if ((shell == 1)); then
    exec 3<&0
    lab_qemu "${arguments[@]}" -serial mon:stdio -append "$append weir.shell=1" <&3
    exit 0
fi
: >"$run/console"
lab_qemu "${arguments[@]}" -serial "file:$run/console" -serial "stdio" \
    -append "$append" </dev/null 2>"$run/qemu" &
qemu_pid=$!
# What to know of a machine that failed: QEMU's own words, then the console's last.
show_console() {
    grep -vE 'hub [0-9]* is not connected|netdev nowhere[0-9] has no peer' "$run/qemu" >&2 || true
    echo "lab: the machine's console:" >&2
    tail -n 150 "$run/console" >&2
}
deadline=$((SECONDS + timeout))
while kill -0 "$qemu_pid" 2>/dev/null; do
    if ((SECONDS >= deadline)); then
        echo "lab: the machine did not end within $timeout seconds" >&2
        show_console
        exit 124
    fi
    sleep 0.2
done
wait "$qemu_pid" || true
qemu_pid=
if [[ ! -s $run/lab/exit-code ]]; then
    echo "lab: the machine ended without a result" >&2
    show_console
    exit 125
fi
code=$(<"$run/lab/exit-code")
# What the kernel complained about says more than the test that failed of it.
((code == 0)) || show_console
exit "$code"
