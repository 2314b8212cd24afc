#!/usr/bin/env bash
# Builds the image twice, compares, and runs it under runc in the lab as the manifests say.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$HOME/.cargo/bin:$PATH"
scripts/ship/packages.sh buildah skopeo umoci runc
begin=$SECONDS
said() { echo "ship: $1 ($((SECONDS - begin)) s)"; }

scripts/image.sh small
said "image built"
# The same program gives the same image, to the byte.
digest=$(cat target/image/weir-small.digest)
cp target/image/weir-small.oci.tar target/image/first.oci.tar
sleep 1
WEIR_IMAGE_BINARY=$(echo target/image/cargo-small/*/release/weir) scripts/image.sh small
if [[ $(cat target/image/weir-small.digest) != "$digest" ]]; then
    echo "ship: two builds gave two images: $digest, $(cat target/image/weir-small.digest)" >&2
    exit 1
fi
# The program tells nothing of the place where it was built, which would make it another one elsewhere.
if strings -a target/image/root-small/usr/bin/weir | grep -F -e "$PWD" -e "${CARGO_HOME:-$HOME/.cargo}" | head -n3 | grep .; then
    echo "ship: the program holds paths of this machine" >&2
    exit 1
fi
said "two builds give $digest"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
skopeo copy -q oci-archive:target/image/weir-small.oci.tar "oci:$work/layout:weir"
umoci unpack --image "$work/layout:weir" "$work/bundle" 2>/dev/null
if find "$work/bundle/rootfs" -type f | grep -v -e /usr/bin/weir -e /LICENSE; then
    echo "ship: the image holds files that it should not" >&2
    exit 1
fi
as_root=()
(($(id -u) == 0)) || as_root=(sudo -E)
cargo build -q -p weir --bin weir
cargo test -q -p weir-hw-tests --test container --no-run
test=$(cargo test -p weir-hw-tests --test container --no-run 2>&1 | sed -n 's/.*(\(target[^)]*container-[^)]*\)).*/\1/p')
WEIR_BUNDLE=$work/bundle WEIR_MANIFEST=$PWD/target/ship/manifests/hostnetwork.json WEIR_BIN=$PWD/target/debug/weir \
    "${as_root[@]}" "$test" --include-ignored --nocapture
said "the image ran"
