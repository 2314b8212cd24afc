#!/usr/bin/env bash
# Proves the unit: systemd-analyze has nothing against it, and a real systemd, booted in a container, starts, reloads, watches,
# restarts and stops the weir of the package with it. Run scripts/ship/deb.sh first: it builds the package.
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/ship/chroot.sh
# Of 10.0, in which 10.0 is no protection at all. What is left is what weir needs: its capabilities and address families.
threshold=24
fail() { echo "systemd: $*" >&2; exit 1; }

package=$(ls target/debian/weir_*.deb 2>/dev/null) || fail "no package: run scripts/ship/deb.sh"
scripts/ship/packages.sh systemd systemd-container debootstrap

systemd-analyze security --offline=true --threshold=$threshold --no-pager container/systemd/weir.service | tail -n 1

root=$(fresh_root boot)
trap 'remove_root "$root"' EXIT
cp "$package" "$root/weir.deb"
chroot "$root" env DEBIAN_FRONTEND=noninteractive LC_ALL=C dpkg -i /weir.deb >/dev/null
chroot "$root" systemd-analyze verify --man=no /lib/systemd/system/weir.service || fail "the unit does not verify"

# The container has no network but what the proof makes.
cat >"$root/proof.sh" <<'PROOF'
#!/bin/bash
set -eu
say() { echo "proof: $*"; }
fail() { say "FAILED: $*"; journalctl --no-pager -u weir | tail -n 40; exit 1; }
eventually() { for _ in $(seq 100); do "$@" && return; sleep 0.3; done; fail "never: $*"; }
property() { systemctl show weir -P "$1"; }
queues="numrxqueues 1 numtxqueues 1"
ip link add wa $queues type veth peer name wb $queues
ip link set wa up
ip link set wb up
ip addr add 10.0.0.2/24 dev wb

systemctl is-active weir || fail "the package's own configuration does not start"
say "runs as installed: $(property StatusText)"
printf '[port.a]\ndevice = "wa"\nmode = "dedicated"\naddresses = ["10.0.0.1/24"]\n' >/etc/weir/weir.toml
systemctl reload weir
say "reloaded: $(property StatusText)"
ping -q -c 3 -W 2 10.0.0.1 >/dev/null || fail "no answer from weir"
say "answers ping through AF_XDP as user $(ps -o user= -p "$(property MainPID)")"
grep -h Cap /proc/"$(property MainPID)"/status | tr '\n' ' '; echo
[[ $(stat -c '%U %G %a' /run/weir/weir.sock) == "weir weir 660" ]] || fail "the socket: $(ls -l /run/weir)"
setpriv --reuid=nobody --regid=nogroup --clear-groups weir show version >/dev/null 2>&1 && fail "nobody may ask weir"
setpriv --reuid=nobody --regid=nogroup --groups="$(getent group weir | cut -d: -f3)" weir show version
say "the socket is for the group weir, and for nobody else"

weir apply --dry-run /etc/weir/weir.toml
generation=$(weir show version --json | tr -d ' \n' | sed 's/.*"generation":\([0-9]*\).*/\1/')
echo 'nonsense = 1' >>/etc/weir/weir.toml
systemctl reload weir && fail "a bad file was accepted"
systemctl is-active weir || fail "a refused reload ended weir"
[[ $(weir show version --json | tr -d ' \n') == *"\"generation\":$generation"* ]] || fail "another generation runs"
ping -q -c 1 -W 2 10.0.0.1 >/dev/null || fail "no answer after a refused reload"
say "a bad file is refused, generation $generation goes on"
sed -i '/nonsense/d' /etc/weir/weir.toml

# One worker thread stops, and nothing else.
pid=$(property MainPID)
worker=$(grep -lx weir-worker-0 /proc/"$pid"/task/*/comm | cut -d/ -f5)
# PTRACE_SEIZE and PTRACE_INTERRUPT, without a debugger: the thread stays stopped for as long as its tracer lives, which is longer than the
# watchdog's time, and no longer: a thread that is traced is not buried before its tracer is gone.
perl -e 'my ($call, $thread) = @ARGV; syscall($call + 0, $_, $thread + 0, 0, 0) == 0 or die "ptrace: $!" for 0x4206, 0x4207; sleep 15' \
    "$([[ $(uname -m) == x86_64 ]] && echo 101 || echo 117)" "$worker" &
restarted() { [[ $(property NRestarts) == 1 && $(systemctl is-active weir) == active ]]; }
eventually restarted
journalctl --no-pager -o cat -u weir | grep -i -m 1 "watchdog timeout" || fail "it was not the watchdog"
eventually ping -q -c 1 -W 1 10.0.0.1 >/dev/null
say "a stuck worker: systemd's watchdog restarted weir, and it answers again"

systemctl restart weir
ping -q -c 1 -W 2 10.0.0.1 >/dev/null || fail "no answer after a restart"
systemctl stop weir
[[ $(property Result) == success ]] || fail "it did not stop in order: $(property Result)"
[[ ! -e /run/weir ]] || fail "/run/weir stays"
ip -d link show wa | grep -q xdp && fail "the XDP program stays"
say "stopped: the kernel has the device back"
journalctl --no-pager -o cat -u weir | grep 'privileges:' | tail -n 1
say "passed"
PROOF
chmod +x "$root/proof.sh"
cat >"$root/etc/systemd/system/proof.service" <<'UNIT'
[Unit]
After=weir.service
[Service]
Type=oneshot
ExecStart=/bin/bash -c '/proof.sh >/proof.txt 2>&1; systemctl --no-block poweroff'
[Install]
WantedBy=multi-user.target
UNIT
ln -s ../proof.service "$root/etc/systemd/system/multi-user.target.wants/proof.service"
timeout --kill-after=10 300 systemd-nspawn --quiet --boot --directory="$root" --register=no --keep-unit --private-network \
    --capability=CAP_NET_ADMIN,CAP_NET_RAW,CAP_BPF,CAP_PERFMON,CAP_IPC_LOCK,CAP_SYS_PTRACE --system-call-filter=bpf \
    </dev/null >"$root/console.txt" 2>&1 || true
cat "$root/proof.txt" 2>/dev/null || tail -n 30 "$root/console.txt"
grep -qx 'proof: passed' "$root/proof.txt" || fail "the proof failed"
echo "systemd: proved by $(chroot "$root" systemctl --version | head -n 1)"
