"""What kustomize built, and what is in it; for kubernetes.py and keda.py beside this file."""

import sys

import yaml

from settings import DEFAULTS

OBJECTS = [o for o in yaml.safe_load_all(open(sys.argv[1])) if o]
OVERLAY = sys.argv[2]
TRY_OUT, EXAMPLE = OVERLAY == "try-out", OVERLAY == "example"
NAME = "esms-otp-worker"
MONITORING = {"example": "observability", "openshift": "openshift-user-workload-monitoring"}.get(OVERLAY, "monitoring")
PRIVATE = {"10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"}


def of_kind(kind):
    return [o for o in OBJECTS if o["kind"] == kind]


def the(kind, name=NAME):
    found = [o for o in of_kind(kind) if o["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} objects {kind}/{name}"
    return found[0]


DEPLOYMENT = the("Deployment")
POD = DEPLOYMENT["spec"]["template"]["spec"]
LABELS = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
INIT = {c["name"]: c for c in POD["initContainers"]}
WORKER = POD["containers"][0]
# The sandbox has its own settings.
PROGRAMS = [WORKER, INIT["check"]]
NAMESPACE = DEPLOYMENT["metadata"]["namespace"]
VOLUMES = {v["name"]: v for v in POD["volumes"]}


def settings(container):
    """The settings that a container is given, by name."""
    given = {}
    for source in container["envFrom"]:
        given |= the("ConfigMap", source["configMapRef"]["name"])["data"]
    return given | {e["name"]: e["value"] for e in container["env"]}


def setting(name):
    return settings(WORKER).get(name, DEFAULTS[name])


def selects(selector, labels):
    wanted = selector.get("matchLabels", {})
    return set(selector) <= {"matchLabels"} and wanted.items() <= labels.items()


def pods():
    """Every pod template, with the name of what makes it."""
    for o in OBJECTS:
        if o["kind"] in ("Deployment", "StatefulSet"):
            yield o["metadata"]["name"], o["spec"]["template"]["spec"]


def containers():
    for name, pod in pods():
        for container in pod.get("initContainers", []) + pod["containers"]:
            yield f"{name}/{container['name']}", pod, container


def policies_for(labels, direction):
    """The rules of every NetworkPolicy for a pod, one way."""
    for policy in of_kind("NetworkPolicy"):
        if selects(policy["spec"]["podSelector"], labels):
            yield from policy["spec"].get(direction, [])


def pods_in(namespace, **labels):
    """The end of a rule: pods with labels. A name with dots and slashes is written with __ and ___."""
    space = {} if namespace is None else {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    return {"namespaceSelector": space,
            "podSelector": {"matchLabels": {k.replace("___", "/").replace("__", "."): v for k, v in labels.items()}}}


def reaches():
    """What a worker reaches: by port, the ends, and the protocols of the rule's ports."""
    found = {}
    for rule in policies_for(LABELS, "egress"):
        assert rule.get("to") and rule.get("ports"), f"a rule without an end: {rule}"
        for port in rule["ports"]:
            ends, protocols = found.setdefault(port["port"], ([], set()))
            ends += [end for end in rule["to"] if end not in ends]
            protocols.add(port.get("protocol", "TCP"))
    return found


def blocks(ends):
    return {end["ipBlock"]["cidr"]: set(end["ipBlock"].get("except", [])) for end in ends if "ipBlock" in end}


def triggers():
    return {t["name"]: t for t in the("ScaledObject")["spec"]["triggers"]}
