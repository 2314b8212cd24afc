#!/usr/bin/env bash
# Builds the Debian package, checks it with lintian, and installs, upgrades, removes and purges it in a fresh Debian.
#   scripts/ship/deb.sh            all of it
#   scripts/ship/deb.sh build      only the package, checked: target/debian/weir_VERSION_ARCH.deb
#   scripts/ship/deb.sh prove      only the rest, with the package that is there
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/ship/chroot.sh
export PATH="$HOME/.cargo/bin:$PATH"

scripts/ship/packages.sh lintian debootstrap

build() {
    if ! cargo deb --version >/dev/null 2>&1; then
        echo "deb: installing cargo-deb"
        cargo install cargo-deb --locked
    fi
    cargo build --release --bin weir
    cargo run -q -p weir --example manual -- target/package
    rm -f target/debian/weir_*.deb
    cargo deb -q -p weir --no-build --strip
    package=$(ls target/debian/weir_*.deb)
    echo "deb: $package, $(stat -c %s "$package") bytes"
    lintian --fail-on error,warning --display-level '>=warning' "$package"
    echo "deb: lintian has nothing to say"
}

if [[ ${1:-} != prove ]]; then build; fi
if [[ ${1:-} == build ]]; then exit; fi
package=$(ls target/debian/weir_*.deb)

root=$(fresh_root deb)
trap 'remove_root "$root"' EXIT
inside() { chroot "$root" env DEBIAN_FRONTEND=noninteractive LC_ALL=C "$@"; }
fail() { echo "deb: $*" >&2; exit 1; }
installed() { inside dpkg-query -W -f '${db:Status-Abbrev}' weir 2>/dev/null || true; }

cp "$package" "$root/weir.deb"
inside dpkg -i /weir.deb
[[ $(installed) == "ii " ]] || fail "it is not installed"
inside weir --version
inside weir check /etc/weir/weir.toml
inside getent group weir >/dev/null || fail "there is no group weir"
[[ $(inside id -un weir) == weir ]] || fail "there is no user weir"
for file in usr/share/man/man1/weir.1.gz usr/share/man/man1/weir-run.1.gz usr/share/man/man5/weir.toml.5.gz \
    usr/share/bash-completion/completions/weir lib/systemd/system/weir.service; do
    [[ -e $root/$file || -e $root/usr/$file ]] || fail "$file is missing"
done
[[ -L $root/etc/systemd/system/multi-user.target.wants/weir.service ]] || fail "the service is not enabled"
echo "deb: installed"

# An upgrade keeps what the operator wrote, though the package brings another file.
echo '# mine' >>"$root/etc/weir/weir.toml"
newer=$(mktemp -d)
dpkg-deb -R "$package" "$newer/tree"
sed -i 's/^Version: .*/&.1/' "$newer/tree/DEBIAN/control"
echo '# from a newer package' >>"$newer/tree/etc/weir/weir.toml"
(cd "$newer/tree" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | xargs -0 md5sum >DEBIAN/md5sums)
dpkg-deb -Zgzip -z1 -b "$newer/tree" "$root/newer.deb"
rm -rf "$newer"
inside dpkg -i --force-confold /newer.deb
[[ $(inside dpkg-query -W -f '${Version}' weir) == *.1 ]] || fail "it was not upgraded"
grep -qx '# mine' "$root/etc/weir/weir.toml" || fail "the upgrade lost the operator's configuration"
inside weir check /etc/weir/weir.toml
echo "deb: upgraded; a changed /etc/weir/weir.toml is kept"

inside dpkg -r weir
[[ ! -e $root/usr/bin/weir ]] || fail "the binary stays after a removal"
[[ -e $root/etc/weir/weir.toml ]] || fail "a removal takes the configuration"
inside dpkg -P weir
[[ ! -e $root/etc/weir ]] || fail "the configuration stays after a purge"
[[ -z $(installed) ]] || fail "it is still known after a purge: $(installed)"
[[ ! -L $root/etc/systemd/system/multi-user.target.wants/weir.service ]] || fail "the service stays enabled"
echo "deb: removed and purged"
