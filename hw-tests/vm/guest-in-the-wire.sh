#!/usr/bin/env bash
# Runs an unmodified Linux guest with two vhost-user network cards that it bridges, until it is killed: a bump in the wire.
#   guest-in-the-wire.sh SOCKET SOCKET     the sockets that a vhost-user back-end listens on
# The console goes to standard output.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
lab_cache=$(cd "$here/../.." && pwd)/target/lab
. "$here/packages.sh"
. "$here/kernel.sh"
. "$here/qemu.sh"
(($# == 2)) || lab_fail "usage: guest-in-the-wire.sh SOCKET SOCKET"

lab_prepare "${WEIR_GUEST_KERNEL:-bookworm-backports}"
# Made once for a kernel: a guest that is started again is there at once.
initramfs=$kernel_directory/guest.initramfs
if [[ ! -e $initramfs || $here/guest-init -nt $initramfs ]]; then
    lab_early_modules=(virtio_pci virtio_net bridge)
    lab_initramfs "$initramfs.$$" "$here/guest-init"
    mv "$initramfs.$$" "$initramfs"
fi
card=virtio-net-pci,romfile=,disable-legacy=on
lab_qemu -M q35 -cpu max -smp 2 -m 256 -accel "${WEIR_LAB_ACCEL:-tcg,thread=multi}" -nodefaults -display none -no-reboot \
    -object memory-backend-memfd,id=memory,size=256M,share=on -machine memory-backend=memory \
    -chardev "socket,id=c0,path=$1,reconnect-ms=500" -netdev vhost-user,id=n0,chardev=c0 \
    -device $card,netdev=n0,mac=52:54:00:00:03:01 \
    -chardev "socket,id=c1,path=$2,reconnect-ms=500" -netdev vhost-user,id=n1,chardev=c1 \
    -device $card,netdev=n1,mac=52:54:00:00:03:02 \
    -serial stdio -kernel "$kernel_image" -initrd "$initramfs" -append "console=ttyS0 panic=1 quiet no_timer_check nohz=off" </dev/null
