#!/usr/bin/env bash
# Installs the Debian packages that building and testing weir needs and that are missing, and checks the Rust compiler.
# Quick when everything is there. Runs as root or through sudo; asks no questions.
set -euo pipefail
cd "$(dirname "$0")/.."

build=(clang gcc g++ make pkg-config libc6-dev libelf-dev zlib1g-dev)
# For the tests of ports over DPDK: its headers and drivers, and testpmd, the peer. clang has brought libclang.
build+=(libdpdk-dev)
lab=(dpdk-dev iproute2 iputils-ping ethtool tcpdump tshark util-linux procps strace)

missing=()
for package in "${build[@]}" "${lab[@]}"; do
    status=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true)
    [[ $status == ii* ]] || missing+=("$package")
done

if ((${#missing[@]} == 0)); then
    echo "setup: all Debian packages are there"
else
    echo "setup: installing ${missing[*]}"
    as_root=()
    if (($(id -u) != 0)); then
        as_root=(sudo)
        command -v sudo >/dev/null || { echo "setup: needs root or sudo to install packages" >&2; exit 1; }
    fi
    export DEBIAN_FRONTEND=noninteractive
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null
fi

# Better said now than by a linker that is killed by a full disk in the middle.
free=$(df -BG --output=avail . | tail -n1 | tr -dc 0-9)
((free >= 8)) || echo "setup: only $free GB are free here: the tests take 5 of them, packages and images 2 more" >&2

# Rust may have been installed by rustup in this very session.
export PATH="$HOME/.cargo/bin:$PATH"
if ! command -v cargo >/dev/null; then
    echo "setup: no cargo; install Rust first, as https://rustup.rs says" >&2
    exit 1
fi
needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
have=$(rustc --version | cut -d' ' -f2)
if [[ $(printf '%s\n%s\n' "$needed" "${have%%-*}" | sort -V | head -n1) != "$needed" ]]; then
    echo "setup: rustc $have is too old, weir needs $needed: run \`rustup update stable\`" >&2
    exit 1
fi
echo "setup: rustc $have"
