#!/usr/bin/env bash
# Runs every `sh` block of the pages about shipping, in the project's directory; `console` blocks need a cluster or hardware.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
ln -s "${WEIR_BIN:-$PWD/target/debug/weir}" "$work/bin/weir"
for page in docs/image.md docs/kubernetes.md docs/cloud.md; do
    awk '/^```sh$/ { inside = 1; next } /^```$/ { inside = 0 } inside' "$page" > "$work/script"
    [[ -s $work/script ]] || { echo "docs: $page has no command to run"; continue; }
    if grep -q '^kubectl' "$work/script" && ! kubectl version --client 2>/dev/null | grep -q '^Kustomize Version: v[5-9]'; then
        echo "docs: SKIPPED $page: no kubectl with kustomize 5 here"
        continue
    fi
    echo "docs: running the commands of $page"
    PATH=$work/bin:$PATH bash -eu "$work/script"
done
