#!/usr/bin/env bash
# Builds the container image without a daemon, reproducibly, as an OCI archive: target/image/weir-FLAVOUR.oci.tar.
#   scripts/image.sh [FLAVOUR]     container/FLAVOUR.flavour says what goes into it; small unless told
# WEIR_IMAGE_BINARY takes a program that is there already instead of building one.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"
flavour=${1:-small}
definition=container/$flavour.flavour
if [[ ! -f $definition ]]; then
    echo "image: there is no flavour $flavour; there is: $(cd container && echo *.flavour | sed 's/\.flavour//g')" >&2
    exit 2
fi
# shellcheck source=/dev/null
source "$definition"
scripts/ship/packages.sh buildah skopeo "${packages[@]}"

host=$(rustc -vV | sed -n 's/^host: //p')
work=$PWD/target/image
mkdir -p "$work"
umask 022

if [[ -n ${WEIR_IMAGE_BINARY:-} ]]; then
    binary=$WEIR_IMAGE_BINARY
else
    # No path of this machine stands in the program, so that it is the same wherever it is built.
    flags="$rustflags --remap-path-prefix=$PWD=/weir --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
    flags+=" --remap-path-prefix=$(rustc --print sysroot)=/rust"
    # Given a target, cargo spares build scripts and macros the flags: they are not part of the program.
    # What only a debugger reads is not built, since it would not be shipped.
    CARGO_PROFILE_RELEASE_DEBUG=none CFLAGS="-ffile-prefix-map=${CARGO_HOME:-$HOME/.cargo}=/cargo -ffile-prefix-map=$PWD=/weir" RUSTFLAGS=$flags \
        cargo build --locked --release --target "$host" --target-dir "target/image/cargo-$flavour" --bin weir ${features:+--features "$features"}
    binary=$work/cargo-$flavour/$host/release/weir
fi

root=$work/root-$flavour
rm -rf "$root"
mkdir -p "$root/usr/bin" "$root/etc/weir" "$root/run/weir" "$root/tmp"
# Names of functions stay for the trace of a panic; the rest of what debuggers need does not.
objcopy --strip-debug --remove-section .comment "$binary" "$root/usr/bin/weir"
chmod 0755 "$root/usr/bin/weir"
chmod 1777 "$root/tmp"
cp LICENSE "$root/LICENSE"

# The libraries that a program or library needs, and theirs, each under the name that it is looked for by.
libraries() {
    mkdir -p "$root/usr/lib/$triplet" "$root/usr/lib64"
    [[ -e $root/lib ]] || ln -s usr/lib "$root/lib"
    [[ -e $root/lib64 ]] || ln -s usr/lib64 "$root/lib64"
    local path
    while read -r path; do
        case $path in
        */ld-linux*) install -m 0755 "$path" "$root$path" ;;
        # One file for a driver that others need, or it would be loaded twice.
        */librte_*)
            if [[ $(readlink -f "$path") == "$plugins"/* ]]; then
                install -m 0644 "$(readlink -f "$path")" "$root$plugins/"
                ln -sf "dpdk/${plugins##*/}/$(basename "$(readlink -f "$path")")" "$root/usr/lib/$triplet/${path##*/}"
            else
                install -m 0644 "$path" "$root/usr/lib/$triplet/${path##*/}"
            fi
            ;;
        *) install -m 0644 "$path" "$root/usr/lib/$triplet/${path##*/}" ;;
        esac
    done < <(ldd "$@" | sed -n 's/^[^/]*\(\/[^ ]*\) (0x.*/\1/p' | sort -u)
}

if [[ -n ${drivers[*]:-} ]]; then
    triplet=$(gcc -print-multiarch)
    # Where EAL looks for a place of its own.
    mkdir -p "$root/var"
    ln -s ../run "$root/var/run"
    plugins=$(echo "/usr/lib/$triplet"/dpdk/pmds-*)
    mkdir -p "$root$plugins"
    found=()
    for driver in "${drivers[@]}"; do
        # EAL loads what has its full version in its name.
        found+=("$(echo "$plugins/librte_$driver.so".[0-9][0-9].[0-9])")
        install -m 0644 "${found[-1]}" "$root$plugins/"
    done
    libraries "$root/usr/bin/weir" "${found[@]}"
elif file_type=$(readelf -d "$root/usr/bin/weir" | grep NEEDED); then
    echo "image: the program is not static:" "$file_type" >&2
    exit 1
fi

# A store of our own: nothing of this machine's containers is touched, and a file system of any kind will do.
store=$(mktemp -d)
trap 'rm -rf "$store"' EXIT
build() { buildah --root "$store/root" --runroot "$store/run" --storage-driver vfs "$@"; }
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n1)
container=$(build from scratch)
build copy -q "$container" "$root" / >/dev/null
build config --entrypoint '["/usr/bin/weir"]' --cmd '["run","--config","/etc/weir/weir.toml","--watch"]' \
    --workingdir / --stop-signal SIGTERM --env PATH=/usr/bin \
    --label "org.opencontainers.image.title=weir" --label "org.opencontainers.image.description=$description" \
    --label "org.opencontainers.image.version=$version" --label "org.opencontainers.image.licenses=Apache-2.0" \
    --created-by "scripts/image.sh $flavour" "$container"
build commit -q --timestamp 0 --format oci --rm "$container" "weir:$version-$flavour" >/dev/null
archive=$work/weir-$flavour.oci.tar
rm -f "$archive"
build push -q "weir:$version-$flavour" "oci-archive:$archive:weir:$version-$flavour"
digest=$(skopeo inspect --format '{{.Digest}}' "oci-archive:$archive")
echo "$digest" > "$work/weir-$flavour.digest"
echo "image: weir:$version-$flavour $digest"
echo "image: $archive, $(stat -c %s "$root/usr/bin/weir") bytes of program"
