#!/usr/bin/env bash
# Runs in the machine that boot.sh boots: loads the drivers, names the cards, runs the test programs put into /run/lab/tests.
# Sourced first, if it is there: /run/lab/environment, which may set FILTER and what else the programs read.
set -euo pipefail
for module in igb igbvf virtio_net veth tun vfio_pci vxlan bridge macvlan dummy 8021q; do
    modprobe "$module" || echo "lab: no module $module"
done
# For programs of DPDK.
echo 128 >/proc/sys/vm/nr_hugepages
# DPDK loads all of its drivers at its start, some 150 files; these are enough here.
plugins=$(echo /usr/lib/*/dpdk/pmds-*)
if [[ -d $plugins ]]; then
    mkdir /tmp/plugins
    for plugin in bus_pci bus_vdev mempool_ring net_e1000; do
        cp -a "$plugins/librte_$plugin".so* /tmp/plugins/
    done
    mount --bind /tmp/plugins "$plugins"
fi
[[ ! -e /run/lab/environment ]] || . /run/lab/environment
# Shortly before the machine is given up, what it is waiting for, on the console.
(
    sleep "${LIMIT:-250}"
    exec >/dev/ttyS0 2>&1
    ps axfo pid,stat,wchan:20,time,args | grep -v '\]$'
    dmesg -n 8
    echo w >/proc/sysrq-trigger
    echo l >/proc/sysrq-trigger
) &
echo "lab: Linux $(uname -r)"
# Copies in memory: pages of a program are read again and again.
mkdir /tmp/lab
cp -r /run/lab/tests /run/lab/weir /tmp/lab/
export WEIR_BIN=/tmp/lab/weir
export WEIR_NIC_A=0000:01:00.0 WEIR_NIC_B=0000:02:00.0 WEIR_NIC_C=0000:03:00.0 WEIR_NIC_D=0000:04:00.0
failed=0
for program in /tmp/lab/tests/*; do
    # One after the other: they share the cards. DPDK has no memif here, see above: that is tested outside.
    # shellcheck disable=SC2086
    "$program" --test-threads=1 --skip memif:: ${FILTER:-} || failed=1
done
exit "$failed"
