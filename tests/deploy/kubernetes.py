"""What must hold in an overlay beyond its schemas. Takes the rendered overlay; a line per check."""

import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

from settings import DEFAULTS, METRICS, SECRETS, VERSION, run, seconds

OBJECTS = [o for o in yaml.safe_load_all(open(sys.argv[1])) if o]
NAME = "esms-otp-worker"


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


def settings(container):
    """The settings that a container is given, by name."""
    given = {}
    for source in container["envFrom"]:
        given |= the("ConfigMap", source["configMapRef"]["name"])["data"]
    return given | {e["name"]: e["value"] for e in container["env"]}


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


def every_name_is_a_setting():
    """  every name in the environment is a setting of the worker."""
    for container in PROGRAMS:
        unknown = settings(container).keys() - DEFAULTS.keys()
        assert not unknown, f"{container['name']} is given {sorted(unknown)}, which `--help` does not have"


def check_sees_what_the_worker_sees():
    """  `check` runs just before the worker, with the same settings, files and image."""
    assert POD["initContainers"][-1]["name"] == "check" and INIT["check"]["args"] == ["check"], "it is not the last of the init containers"
    assert WORKER["args"] == ["run"], str(WORKER["args"])
    for part in ("env", "envFrom", "volumeMounts", "image", "securityContext"):
        assert WORKER[part] == INIT["check"][part], f"they differ in {part}"


def the_grace_is_longer_than_the_workers():
    """  terminationGracePeriodSeconds is over OTP_SHUTDOWN_GRACE."""
    own = seconds(settings(WORKER).get("OTP_SHUTDOWN_GRACE", DEFAULTS["OTP_SHUTDOWN_GRACE"]))
    given = POD["terminationGracePeriodSeconds"]
    assert given >= own + 5, f"{given} s for a worker that takes up to {own} s"


def secrets_are_files():
    """  secrets are files of one secret, never variables."""
    given = settings(WORKER)
    assert not SECRETS & given.keys(), f"{sorted(SECRETS & given.keys())} in the environment"
    volumes = {v["name"]: v.get("secret") for v in POD["volumes"]}
    [mount] = WORKER["volumeMounts"]
    secret = volumes[mount["name"]]
    assert mount["readOnly"] and secret["defaultMode"] == 0o440, "the secret can be written, or read by others"
    # In production it is not among the objects.
    keys = [o["stringData" if "stringData" in o else "data"].keys() for o in of_kind("Secret")
            if o["metadata"]["name"] == secret["secretName"]]
    for name in SECRETS:
        folder, _, key = given.get(f"{name}_FILE", "").rpartition("/")
        assert folder == mount["mountPath"], f"{name}_FILE is not under {mount['mountPath']}"
        assert not keys or key in keys[0], f"the secret has no key {key}"


def capacity_is_kept():
    """  a rolling update starts a worker before it stops one; a drain takes one at a time."""
    update = DEPLOYMENT["spec"]["strategy"]["rollingUpdate"]
    assert update["maxUnavailable"] == 0 and update["maxSurge"] >= 1, str(update)
    budget = the("PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1 and selects(budget["selector"], LABELS), str(budget)
    for spread in POD["topologySpreadConstraints"]:
        assert selects(spread["labelSelector"], LABELS), str(spread)
    keys = {s["topologyKey"] for s in POD["topologySpreadConstraints"]}
    assert keys == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}, str(keys)


def probes_are_served():
    """  the probes are what HTTP_ADDR serves."""
    [port] = WORKER["ports"]
    address = settings(WORKER).get("HTTP_ADDR", DEFAULTS["HTTP_ADDR"])
    assert address == f"0.0.0.0:{port['containerPort']}", f"{address} is not port {port}"
    for probe, path in {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}.items():
        get = WORKER[f"{probe}Probe"]["httpGet"]
        assert get == {"path": path, "port": port["name"]}, f"{probe}: {get}"


def pods_are_restricted():
    """  every pod keeps to the restricted standard, and the namespace enforces it."""
    assert the("Namespace", NAMESPACE)["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted", "the namespace"
    for name, pod, container in containers():
        all_of_it, own = pod["securityContext"], container["securityContext"]
        assert all_of_it["runAsNonRoot"] is True and all_of_it["runAsUser"] > 0, name
        assert all_of_it["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert own == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                       "capabilities": {"drop": ["ALL"]}}, f"{name}: {own}"
    for name, pod in pods():
        kinds = {kind for v in pod.get("volumes", []) for kind in v if kind != "name"}
        assert kinds <= {"secret", "configMap", "emptyDir"}, f"{name}: {kinds}"
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), name


def no_pod_has_a_token():
    """  no pod has a token of Kubernetes."""
    for name, pod in pods():
        assert pod["automountServiceAccountToken"] is False, name
        assert the("ServiceAccount", pod["serviceAccountName"])["automountServiceAccountToken"] is False, name


def resources_are_bounded():
    """  every container has requests and limits."""
    for name, _, container in containers():
        for side in ("requests", "limits"):
            missing = {"cpu", "memory", "ephemeral-storage"} - container["resources"][side].keys()
            assert not missing, f"{name} has no {side} of {missing}"


def the_image_is_this_version():
    """  the image's tag is the version in Cargo.toml."""
    for container in PROGRAMS:
        assert container["image"].endswith(f":{VERSION}"), container["image"]


def all_is_in_one_namespace():
    """  everything is in one namespace."""
    for o in OBJECTS:
        if o["kind"] != "Namespace":
            assert o["metadata"].get("namespace") == NAMESPACE, f"{o['kind']}/{o['metadata']['name']}"


def policies_for(labels, direction):
    """The rules of every NetworkPolicy for a pod, one way."""
    for policy in of_kind("NetworkPolicy"):
        if selects(policy["spec"]["podSelector"], labels):
            yield from policy["spec"].get(direction, [])


def the_network_is_narrow():
    """  a worker reaches DNS, broker, Redis and 443 outside, and is reached for its metrics."""
    [closed] = [p for p in of_kind("NetworkPolicy") if p["spec"]["podSelector"] == {}]
    assert set(closed["spec"]) == {"podSelector", "policyTypes"}, "the policy for all pods allows something"
    ports = {}
    for rule in policies_for(LABELS, "egress"):
        assert rule.get("to") and rule.get("ports"), f"a rule without an end: {rule}"
        for port in rule["ports"]:
            ports[port["port"]] = rule["to"]
    assert ports.keys() <= {53, 443, 5671, 5672, 6379, 6380}, str(ports.keys())
    assert {53, 443, 5672, 6379} <= ports.keys(), f"not all that a worker needs: {ports.keys()}"
    dns = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]
    assert ports[53] == dns, f"DNS: {ports[53]}"
    [inward] = policies_for(LABELS, "ingress")
    assert inward["ports"] == [{"port": "http"}] and inward["from"], str(inward)


def only_the_try_out_pretends():
    """  the sandbox and made-up secrets are in the try-out alone."""
    signs = {"ESMS_URL": "ESMS_URL" in settings(WORKER), "sandbox": "sandbox" in INIT, "secrets": bool(of_kind("Secret"))}
    assert set(signs.values()) == {NAMESPACE.endswith("try-out")}, str(signs)


def the_metrics_are_found():
    """  the PodMonitor finds the workers."""
    monitor = the("PodMonitor")["spec"]
    assert selects(monitor["selector"], LABELS), str(monitor["selector"])
    [endpoint] = monitor["podMetricsEndpoints"]
    assert endpoint["port"] == WORKER["ports"][0]["name"] and endpoint["path"] == "/metrics", str(endpoint)


def triggers():
    return {t["name"]: t for t in the("ScaledObject")["spec"]["triggers"]}


def keda_scales_the_workers():
    """  KEDA scales the Deployment, and nobody else does."""
    spec = the("ScaledObject")["spec"]
    assert spec["scaleTargetRef"]["name"] == NAME and "replicas" not in DEPLOYMENT["spec"], "replicas"
    assert 2 <= spec["minReplicaCount"] <= spec["maxReplicaCount"], "the bounds"
    backlog = triggers()["backlog"]
    assert backlog["metadata"]["queueName"] == settings(WORKER).get("OTP_QUEUE", DEFAULTS["OTP_QUEUE"]), "another queue"
    [host] = the("TriggerAuthentication", backlog["authenticationRef"]["name"])["spec"]["secretTargetRef"]
    [volume] = POD["volumes"]
    assert host["name"] == volume["secret"]["secretName"], "KEDA's secret is not the worker's"
    assert settings(WORKER)["AMQP_URL_FILE"].endswith(f"/{host['key']}"), "another key of it"


def keda_asks_for_what_there_is():
    """  KEDA's queries are PromQL, over metrics of ours in this namespace."""
    queries = [t["metadata"]["query"] for t in triggers().values() if t["type"] == "prometheus"]
    for query in queries:
        for metric, labels in re.findall(r"\b((?:otp|esms)_[a-z_]+)(\{[^}]*\})?", query):
            assert metric in METRICS, f"no metric {metric}"
            assert f'namespace="{NAMESPACE}"' in labels, f"{metric} of another namespace: {query}"
    rules = {"groups": [{"name": "keda", "rules": [{"record": "a:b", "expr": q} for q in queries[:1]]}]}
    rules["groups"][0]["rules"] += [{"record": f"a:b{i}", "expr": q} for i, q in enumerate(queries[1:])]
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "rules.yaml")
        file.write_text(yaml.safe_dump(rules))
        said = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr


def wanted(**values):
    """How many workers the formula asks for, as the autoscaler reckons: rounded up, within the bounds."""
    spec = the("ScaledObject")["spec"]
    modifiers = spec["advanced"]["scalingModifiers"]
    assert modifiers["metricType"] == "AverageValue", modifiers["metricType"]
    condition, yes, no = re.fullmatch(r"(.*) \? (.*) : (.*)", modifiers["formula"]).groups()
    names = set(re.findall(r"[a-z_]+", modifiers["formula"]))
    assert names == triggers().keys() == values.keys(), f"{names} are not the triggers"
    python = f"({yes}) if ({condition}) else ({no})".replace("&&", "and").replace("||", "or")
    workers = -(-eval(python, {"__builtins__": {}}, values) // float(modifiers["target"]))
    return max(spec["minReplicaCount"], min(spec["maxReplicaCount"], int(workers)))


def keda_does_not_knock_harder():
    """  no worker is added against an open circuit, or while eSMS throttles or turns calls away."""
    cases = [
        # waiting, workers, open circuits, rate found, share turned away: workers wanted
        (0, 3, 0, 0, 0, 3),
        (1000, 3, 0, 0, 0, 5),
        (100000, 3, 0, 0, 0, 12),
        (100000, 4, 1, 0, 0, 4),
        (100000, 4, 0, 7.5, 0, 4),
        (100000, 4, 0, 0, 0.5, 4),
        (100000, 4, 0, 0, 0.1, 12),
        (700, 6, 1, 5, 1, 4),
        (700, 6, 0, 5, 0, 4),
        (100000, 12, 1, 5, 1, 12),
    ]
    for backlog, workers, circuits_open, throttled, turned_away, right in cases:
        got = wanted(backlog=backlog, workers=workers, circuits_open=circuits_open, throttled=throttled,
                     turned_away=turned_away)
        assert got == right, f"{got}, not {right}, workers for {backlog} jobs, {workers} workers, " \
                             f"{circuits_open} open circuits, {throttled} calls a second, {turned_away} turned away"


def series(metric, labels, values):
    given = ",".join(f'{label}="{value}"' for label, value in {"namespace": NAMESPACE, **labels}.items())
    return {"series": f"{metric}{{{given}}}", "values": values}


def keda_sees_what_is_turned_away():
    """  throttled calls are turned away to KEDA's queries, whatever their class."""
    queries = {name: t["metadata"]["query"] for name, t in triggers().items() if t["type"] == "prometheus"}
    # 100 calls a reading, of which so many were not sent, were answered with 160, and with 103; the rate found 90
    # and 45 seconds ago: the share turned away, and whether eSMS throttles.
    cases = [
        (0, 0, 0, (0, 0), 0, 0),
        (30, 0, 0, (0, 0), 0.3, 0),
        (0, 40, 0, (0, 0), 0.4, 0),
        (20, 40, 10, (0, 0), 0.6, 0),
        (0, 0, 90, (0, 0), 0, 0),
        (0, 0, 0, (0, 7.5), 0, 7.5),
        (0, 0, 0, (7.5, 0), 0, 0),
    ]
    tests = []
    for not_sent, over, balance, (earlier, later), share, rate in cases:
        tests.append({
            "interval": "15s",
            "input_series": [
                series("otp_attempts_total", {"class": "not_sent"}, f"0+{not_sent}x20"),
                series("otp_attempts_total", {"class": "answered"}, f"0+{100 - not_sent}x20"),
                series("otp_code_results_total", {"code": "160", "scope": "throttle"}, f"0+{over}x20"),
                series("otp_code_results_total", {"code": "103", "scope": "account"}, f"0+{balance}x20"),
                series("otp_rate_found", {}, f"0x13 {earlier} 0 0 {later} 0x3"),
            ],
            "promql_expr_test": [
                {"expr": f"round({queries['turned_away']}, 0.01)", "eval_time": "5m",
                 "exp_samples": [{"labels": "{}", "value": share}]},
                {"expr": queries["throttled"], "eval_time": "5m", "exp_samples": [{"labels": "{}", "value": rate}]},
            ],
        })
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "tests.yaml")
        file.write_text(yaml.safe_dump({"evaluation_interval": "15s", "tests": tests}))
        said = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr


EVERYWHERE = [
    every_name_is_a_setting, check_sees_what_the_worker_sees, the_grace_is_longer_than_the_workers,
    secrets_are_files, capacity_is_kept, probes_are_served, pods_are_restricted, no_pod_has_a_token,
    resources_are_bounded, the_image_is_this_version, all_is_in_one_namespace, the_network_is_narrow,
    only_the_try_out_pretends,
]
PRODUCTION = [the_metrics_are_found, keda_scales_the_workers, keda_asks_for_what_there_is,
              keda_does_not_knock_harder, keda_sees_what_is_turned_away]

run(EVERYWHERE + ([] if NAMESPACE.endswith("try-out") else PRODUCTION))
