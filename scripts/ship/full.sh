#!/usr/bin/env bash
# Builds the image with DPDK in it, and runs it on nothing but its own files: every driver loads, and frames pass.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$HOME/.cargo/bin:$PATH"
begin=$SECONDS
said() { echo "ship: $1 ($((SECONDS - begin)) s)"; }

scripts/image.sh full
said "image built"

as_root=()
(($(id -u) == 0)) || as_root=(sudo -E)
root=$(mktemp -d)
trap '"${as_root[@]}" rm -rf "$root"' EXIT
cp -a target/image/root-full/. "$root"
mkdir -p "$root/proc" "$root/sys" "$root/dev"
cat > "$root/etc/weir/weir.toml" <<'TOML'
[memory]
frames = 4096
[port.in]
device = "vdev:net_null0,size=64"
mode = "dedicated"
[port.out]
device = "vdev:net_null1,no-rx=1"
mode = "dedicated"
[cross-connect.wire]
ends = ["in", "out"]
TOML
# In namespaces of its own, so that nothing of this machine is touched, and the mounts go with them.
"${as_root[@]}" unshare --mount --net --pid --fork bash -euc '
    root=$1
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    inside() { chroot "$root" /usr/bin/weir "$@"; }
    inside run --config /etc/weir/weir.toml --log debug > "$root/tmp/log" 2>&1 &
    weir=$!
    for _ in $(seq 100); do
        sent=$(inside show ports --json 2>/dev/null | grep -o "\"tx_frames\": *[0-9]*" | tr -dc "0-9\\n" | sort -n | tail -n1) || sent=
        ((${sent:-0} < 1000)) || break
        sleep 0.1
    done
    kill "$weir" || true
    wait "$weir" || true
    if ((${sent:-0} < 1000)) || grep -q "cannot open shared object" "$root/tmp/log"; then
        cat "$root/tmp/log" >&2
        echo "ship: the image with DPDK does not forward, or lacks a library" >&2
        exit 1
    fi
    echo "ship: the image with DPDK forwarded $sent frames"
' bash "$root"
said "the image with DPDK ran"
