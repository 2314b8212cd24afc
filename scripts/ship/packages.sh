#!/usr/bin/env bash
# Installs the Debian packages named, if they are missing.
set -euo pipefail
missing=()
for package in "$@"; do
    status=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true)
    [[ $status == ii* ]] || missing+=("$package")
done
((${#missing[@]} > 0)) || exit 0
echo "packages: installing ${missing[*]}"
as_root=()
if (($(id -u) != 0)); then
    command -v sudo >/dev/null || { echo "packages: needs root or sudo to install ${missing[*]}" >&2; exit 1; }
    as_root=(sudo)
fi
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null
