#!/usr/bin/env bash
# Builds what weir is shipped in, and proves each: parts in scripts/ship/.
#   scripts/ship.sh [PART…]      all of them unless told
set -euo pipefail
cd "$(dirname "$0")/.."
parts=("$@")
if ((${#parts[@]} == 0)); then
    parts=(manifests image full docs deb systemd)
fi
cargo=$HOME/.cargo/bin
export PATH="$cargo:$PATH"
cargo build -q -p weir --bin weir
for part in "${parts[@]}"; do
    echo "ship: $part"
    WEIR_BIN=$PWD/target/debug/weir "scripts/ship/$part.sh"
done
echo "ship: ${parts[*]}: done"
