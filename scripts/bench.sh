#!/usr/bin/env bash
# The benchmarks: what `make bench`, `make bench-quick` and their kin run.
#   peers         install DPDK and Open vSwitch, to compare with
#   full          measure everything beside the peers; writes docs/benchmarks/ and the pages that show figures
#   quick         measure weir alone, briefly; writes nothing
#   wire          measure weir, the kernel and testpmd over veth; writes target/wire/, docs/benchmarks/wire* and the pages
#   dpdk          measure weir over DPDK devices beside testpmd, Open vSwitch and (L3FWD=…) l3fwd; writes docs/benchmarks/dpdk.json and the pages
#   instructions  count instructions, and compare them with the baseline
#   bless         make the counts the baseline
#   pages         write the figures of docs/benchmarks/ into the pages
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"

bench=target/release/weir-bench
folder=docs/benchmarks
baseline=bench/baseline/instructions.json
# Pages of 2 MB: for the peers 160 each, the rest for weir's tables and frames. At most a quarter of the memory.
pages=2048
quarter=$(awk '/^MemTotal/ { print int($2 / 4 / 2048) }' /proc/meminfo)
((pages <= quarter)) || pages=$quarter

as_root=()
if (($(id -u) != 0)); then
    command -v sudo >/dev/null || { echo "bench: needs root or sudo" >&2; exit 1; }
    as_root=(sudo -E)
fi

need() {
    local missing=()
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true) == ii* ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    echo "bench: installing ${missing[*]}"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null
}

# dpdk-testpmd is in dpdk-dev.
peers() { need dpdk dpdk-dev openvswitch-switch-dpdk; }

build() { cargo build --release -p weir-bench; }

# Reserves 2 MB pages for this run, and gives them back at its end.
reserve_pages() {
    local file=/proc/sys/vm/nr_hugepages
    before=$(<$file)
    ((before >= pages)) && return 0
    trap 'echo "$before" | "${as_root[@]}" tee /proc/sys/vm/nr_hugepages >/dev/null' EXIT
    echo "$pages" | "${as_root[@]}" tee $file >/dev/null
    local got
    got=$(<$file)
    ((got >= pages)) || echo "bench: only $got of $pages pages of 2 MB could be had" >&2
}

write_pages() { "$bench" report --from "$folder" README.md docs/benchmarking.md; }

case "${1:-}" in
peers) peers ;;
full)
    peers
    build
    reserve_pages
    mkdir -p "$folder"
    # Ahead of what else runs: peers report means, which an interruption makes larger.
    "${as_root[@]}" nice -n -20 "$bench" pipeline --peers --hostile --json "$folder/pipeline.json" --plot "$folder/pipeline.svg"
    "${as_root[@]}" nice -n -20 "$bench" pipeline --workload W2,W4,W5,W6,W8 --burst 1,4,16,32,64 --repeats 11 \
        --json "$folder/bursts.json" --plot "$folder/bursts.svg"
    "${as_root[@]}" nice -n -20 "$bench" scale --json "$folder/scale.json" --plots "$folder"
    "${as_root[@]}" nice -n -20 "$bench" tables --peers --json "$folder/tables.json" --plot "$folder"
    # What root wrote belongs to whoever owns the folder.
    "${as_root[@]}" chown -R --reference=docs "$folder"
    write_pages
    ;;
quick)
    build
    "$bench" pipeline --hostile --repeats 11 --packets 32768
    ;;
wire)
    # ethtool and iproute2 come with the setup.
    need dpdk dpdk-dev
    cargo build --release -p weir-bench -p weir
    # Ahead of what else runs.
    "${as_root[@]}" nice -n -20 "$bench" wire --out target/wire
    cp target/wire/wire.json target/wire/wire-latency.svg target/wire/wire-throughput.svg "$folder/"
    write_pages
    ;;
dpdk)
    peers
    need libdpdk-dev libclang-dev
    build
    # Linked with DPDK's libraries: not the weir that is shipped without them.
    cargo build --release -p weir --features dpdk --target-dir target/dpdk
    reserve_pages
    mkdir -p "$folder"
    "${as_root[@]}" nice -n -20 "$bench" dpdk --json "$folder/dpdk.json" ${L3FWD:+--l3fwd "$L3FWD"}
    "${as_root[@]}" chown -R --reference=docs "$folder"
    write_pages
    ;;
instructions)
    need valgrind
    build
    "$bench" instructions --baseline $baseline
    ;;
bless)
    need valgrind
    build
    "$bench" instructions --baseline $baseline --bless
    ;;
pages)
    build
    write_pages
    ;;
*)
    sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac
