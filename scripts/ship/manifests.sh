#!/usr/bin/env bash
# Checks the Kubernetes manifests: the flat files are what kustomize makes of the overlays, every version of Kubernetes from 1.28 on
# takes them, they say what weir needs, and weir takes their configurations.
#   scripts/ship/manifests.sh            checks
#   scripts/ship/manifests.sh --write    makes the flat files anew first
set -euo pipefail
cd "$(dirname "$0")/../.."
kubernetes=container/kubernetes
overlays=(hostnetwork hardened privileged multus afxdp-device-plugin)

scripts/ship/packages.sh python3 python3-venv
venv=target/ship/venv
if ! "$venv/bin/python" -c 'import kubernetes_validate, yaml' 2>/dev/null; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check -r scripts/ship/requirements.txt
fi

# `labels` and `patches` need kustomize 5; Debian's kubectl has an older one.
if kubectl version --client 2>/dev/null | grep -q '^Kustomize Version: v[5-9]'; then
    made=$(mktemp -d)
    trap 'rm -rf "$made"' EXIT
    for overlay in "${overlays[@]}"; do
        {
            echo "# Made by scripts/ship/manifests.sh --write of overlays/$overlay; do not edit."
            kubectl kustomize "$kubernetes/overlays/$overlay"
        } > "$made/$overlay.yaml"
        if [[ ${1:-} == --write ]]; then
            cp "$made/$overlay.yaml" "$kubernetes/flat/$overlay.yaml"
        elif ! diff -u "$kubernetes/flat/$overlay.yaml" "$made/$overlay.yaml"; then
            echo "manifests: flat/$overlay.yaml is out of step with its overlay: run scripts/ship/manifests.sh --write" >&2
            exit 1
        fi
    done
    echo "manifests: the flat files are in step with the overlays"
else
    echo "manifests: SKIPPED: no kubectl with kustomize 5 here, so that nobody looked whether the flat files are in step"
fi
mkdir -p target/ship/manifests
"$venv/bin/python" scripts/ship/manifests.py "$kubernetes/flat" target/ship/manifests "${WEIR_BIN:-}"
