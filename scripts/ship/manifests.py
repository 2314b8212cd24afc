"""Checks the flat manifests offline, and writes each as JSON for the image's test.

    manifests.py FLAT_DIRECTORY JSON_DIRECTORY [WEIR_BINARY]
"""

import json
import pathlib
import re
import subprocess
import sys

import kubernetes_validate
import yaml

FIRST_VERSION = (1, 28)
HARDENED = ["NET_ADMIN", "NET_RAW", "BPF", "PERFMON", "IPC_LOCK", "SYS_NICE"]
HOST_NETWORK = {"hostnetwork", "hardened", "privileged"}
# What kubernetes-validate has no schema of.
CUSTOM = {"NetworkAttachmentDefinition"}


def expect(condition, text):
    if not condition:
        raise SystemExit(f"manifests: {text}")


def validate(name, documents):
    """Every version's own schema, with no key that it does not know."""
    every = dict.fromkeys(re.match(r"\d+\.\d+", version)[0] for version in kubernetes_validate.utils.all_versions())
    versions = [version for version in every if tuple(map(int, version.split("."))) >= FIRST_VERSION]
    expect(len(versions) >= 10, f"only {versions} can be checked")
    # The check itself can fail.
    try:
        kubernetes_validate.validate({**documents[0], "no-such-key": 1}, versions[-1], strict=True)
    except kubernetes_validate.ValidationError:
        pass
    else:
        raise SystemExit("manifests: an unknown key was not noticed")
    for document in documents:
        if document["kind"] in CUSTOM:
            json.loads(document["spec"]["config"])
            continue
        for version in versions:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                raise SystemExit(f"manifests: {name}, {document['kind']}, Kubernetes {version}: {error.message}") from error
    return versions


def guaranteed(name, container):
    """QoS class Guaranteed with cores of its own, and huge pages beside cpu and memory."""
    requests, limits = container["resources"]["requests"], container["resources"]["limits"]
    expect(requests == limits, f"{name}: limits differ from requests: the QoS class is not Guaranteed")
    expect(re.fullmatch("[1-9][0-9]*", requests["cpu"]), f"{name}: cpu {requests['cpu']} is no integer")
    expect("memory" in requests and "hugepages-2Mi" in requests, f"{name}: no memory or no huge pages")


def privileges(name, context):
    if name == "privileged":
        expect(context.get("privileged") is True, f"{name}: is not")
        return
    expect(context["capabilities"]["drop"] == ["ALL"], f"{name}: does not drop ALL capabilities")
    added = ["NET_RAW", "IPC_LOCK"] if name == "afxdp-device-plugin" else HARDENED
    expect(context["capabilities"]["add"] == added, f"{name}: adds {context['capabilities']['add']}")
    expect(context["allowPrivilegeEscalation"] is False, f"{name}: privilege escalation")
    profile = "RuntimeDefault" if name == "hardened" else "Unconfined"
    expect(context["seccompProfile"] == {"type": profile}, f"{name}: {context['seccompProfile']}")


def probes(name, container, host):
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    address, port = environment["WEIR_HEALTH"].rsplit(":", 1)
    expect((address == "127.0.0.1") == host, f"{name}: probes are answered at {address}")
    for probe, path in [("startup", "/startz"), ("liveness", "/livez"), ("readiness", "/readyz")]:
        get = container[f"{probe}Probe"]["httpGet"]
        expect(get["path"] == path and str(get["port"]) == port, f"{name}: {probe} asks {get}")
        expect(get.get("host") == ("127.0.0.1" if host else None), f"{name}: {probe} asks {get}")
    expect(container["lifecycle"]["preStop"]["exec"]["command"][:2] == ["/usr/bin/weir", "drain"], f"{name}: preStop")


def says_what_weir_needs(name, kinds):
    namespace = kinds["Namespace"]["metadata"]["labels"]
    expect(namespace["pod-security.kubernetes.io/enforce"] == "privileged", f"{name}: the namespace admits no such pod")
    spec = kinds["DaemonSet"]["spec"]
    update = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}
    expect(spec["updateStrategy"] == update, f"{name}: {spec['updateStrategy']}")
    pod = spec["template"]["spec"]
    host = name in HOST_NETWORK
    expect(pod["priorityClassName"] == "system-node-critical", f"{name}: priority")
    expect(pod["nodeSelector"]["role"] == "router", f"{name}: node selector")
    expect(pod.get("hostNetwork", False) == host, f"{name}: host network")
    expect(pod.get("dnsPolicy") == ("ClusterFirstWithHostNet" if host else None), f"{name}: DNS policy")
    # Host network excludes attachments by Multus.
    annotations = spec["template"]["metadata"].get("annotations", {})
    expect(("k8s.v1.cni.cncf.io/networks" in annotations) != host, f"{name}: attachments")
    for container in pod["containers"] + pod.get("initContainers", []):
        guaranteed(name, container)
        privileges(name, container["securityContext"])
        expect(container["securityContext"]["readOnlyRootFilesystem"] is True, f"{name}: root file system")
        expect(not any("subPath" in mount for mount in container["volumeMounts"]), f"{name}: subPath is never updated")
    probes(name, pod["containers"][0], host)
    maps = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
    expect(maps == [kinds["ConfigMap"]["metadata"]["name"]], f"{name}: mounts {maps}")


def configuration(name, kinds, directory, weir):
    path = directory / f"{name}.toml"
    path.write_text(kinds["ConfigMap"]["data"]["weir.toml"])
    if weir:
        subprocess.run([weir, "check", str(path)], check=True, stdout=subprocess.DEVNULL)


def main():
    flat, out = map(pathlib.Path, sys.argv[1:3])
    weir = sys.argv[3] if len(sys.argv) > 3 else ""
    files = sorted(flat.glob("*.yaml"))
    expect(len(files) == 5, f"{len(files)} flat files")
    versions = []
    for file in files:
        documents = list(yaml.safe_load_all(file.read_text()))
        kinds = {document["kind"]: document for document in documents}
        versions = validate(file.stem, documents)
        says_what_weir_needs(file.stem, kinds)
        configuration(file.stem, kinds, out, weir)
        (out / f"{file.stem}.json").write_text(json.dumps(kinds))
    checked = "and weir takes their configurations" if weir else "(configurations not checked: WEIR_BIN is not set)"
    print(f"manifests: {', '.join(file.stem for file in files)}: valid for Kubernetes {versions[0]} to {versions[-1]}, {checked}")


main()
