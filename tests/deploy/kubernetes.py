"""What must hold in an overlay beyond its schemas; a line per check.

    kubernetes.py RENDERED NAME

NAME is an overlay, or a component that was put upon the production overlay in a namespace `elsewhere`.
"""

import base64
import json
import pathlib
import re
import subprocess
import tempfile

import yaml

import keda
from rendered import (DEPLOYMENT, EXAMPLE, INIT, LABELS, MONITORING, NAMESPACE, OBJECTS, OVERLAY, POD, PRIVATE, PROGRAMS,
                      TRY_OUT, VOLUMES, WORKER, blocks, containers, of_kind, pods, pods_in, policies_for, reaches, selects,
                      setting, settings, the)
from settings import DEFAULTS, ROOT, SECRETS, VERSION, run, seconds


def every_name_is_a_setting():
    """  every name in the environment is a setting of the worker."""
    for container in PROGRAMS:
        unknown = settings(container).keys() - DEFAULTS.keys()
        assert not unknown, f"{container['name']} is given {sorted(unknown)}, which `--help` does not have"


def check_sees_what_the_worker_sees():
    """  `check` runs just before the worker, with the same settings, files and image."""
    assert POD["initContainers"][-1]["name"] == "check", "it is not the last of the init containers"
    # With --strict it would keep every worker from starting while a broker is away.
    assert INIT["check"]["args"] == ["check"], str(INIT["check"]["args"])
    assert WORKER["args"] == ["run"], str(WORKER["args"])
    for part in ("env", "envFrom", "volumeMounts", "image", "securityContext"):
        assert WORKER[part] == INIT["check"][part], f"they differ in {part}"


def the_grace_is_longer_than_the_workers():
    """  terminationGracePeriodSeconds is over OTP_SHUTDOWN_GRACE."""
    own = seconds(setting("OTP_SHUTDOWN_GRACE"))
    given = POD["terminationGracePeriodSeconds"]
    assert given >= own + 5, f"{given} s for a worker that takes up to {own} s"


def secrets_are_files():
    """  secrets are files of one secret, never variables, and KEDA can read the address."""
    given = settings(WORKER)
    memory = given.get("OTP_LEDGER_URL") == "memory:"
    held = SECRETS - {"OTP_LEDGER_URL"} if memory else SECRETS
    assert not held & given.keys(), f"{sorted(held & given.keys())} in the environment"
    mounts = {m["mountPath"]: m for m in WORKER["volumeMounts"]}
    mount = mounts["/run/esms-otp-worker"]
    secret = VOLUMES[mount["name"]]["secret"]
    assert all(m["readOnly"] for m in mounts.values()) and secret["defaultMode"] == 0o440, "it can be written, or read by others"
    assert not any("subPath" in m for m in mounts.values()), "with subPath a rotated secret never arrives"
    # In production it is not among the objects.
    made = [o["data"] for o in of_kind("Secret") if o["metadata"]["name"] == secret["secretName"]]
    assert made or OVERLAY not in ("try-out", "example"), f"the secret {secret['secretName']} is not there"
    for name in held:
        folder, _, key = given.get(f"{name}_FILE", "").rpartition("/")
        assert folder == mount["mountPath"], f"{name}_FILE is not under {mount['mountPath']}"
        for data in made:
            assert key in data, f"the secret has no key {key}"
            value = base64.b64decode(data[key]).decode()
            assert value and not re.search(r"[\s,]", value), f"white space or several addresses in {key}, which KEDA does not take"


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
    host, _, number = setting("HTTP_ADDR").rpartition(":")
    assert host in ("0.0.0.0", "[::]") and number == str(port["containerPort"]), f"{host}:{number} is not port {port}"
    for probe, path in {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}.items():
        get = WORKER[f"{probe}Probe"]["httpGet"]
        assert get == {"path": path, "port": port["name"]}, f"{probe}: {get}"


def pods_are_restricted():
    """  every pod keeps to the restricted standard, and the namespace enforces it."""
    assert the("Namespace", NAMESPACE)["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted", "the namespace"
    for name, pod, container in containers():
        all_of_it, own = pod["securityContext"], container["securityContext"]
        # OpenShift gives users and groups, and refuses a pod that names its own.
        named = {"runAsUser", "runAsGroup", "fsGroup"} & all_of_it.keys()
        assert len(named) == (0 if OVERLAY == "openshift" else 3), f"{name}: {named}"
        assert all_of_it["runAsNonRoot"] is True and all(all_of_it[n] > 0 for n in named), name
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
    for container in PROGRAMS + [INIT[name] for name in INIT if name == "sandbox"]:
        assert container["image"].endswith(f":{VERSION}"), container["image"]


def all_is_in_one_namespace():
    """  everything is in one namespace."""
    for o in OBJECTS:
        if o["kind"] not in ("Namespace", "PriorityClass"):
            assert o["metadata"].get("namespace") == NAMESPACE, f"{o['kind']}/{o['metadata']['name']}"


def the_network_is_narrow():
    """  a worker reaches DNS, broker, Redis and 443 outside, and is reached for its metrics."""
    [closed] = [p for p in of_kind("NetworkPolicy") if p["spec"]["podSelector"] == {}]
    assert set(closed["spec"]) == {"podSelector", "policyTypes"}, "the policy for all pods allows something"
    ports = reaches().keys()
    more = {4318} if OVERLAY == "otlp" else set()
    assert ports <= {53, 443, 5353, 5671, 5672, 6379, 6380} | more, str(ports)
    assert {53, 443, 5672, 6379} | more <= ports, f"not all that a worker needs: {ports}"
    [inward] = policies_for(LABELS, "ingress")
    assert inward["ports"] == [{"port": "http"}], str(inward)
    [scraper] = inward["from"]
    assert scraper == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": MONITORING}}}, str(scraper)
    outside = blocks(reaches()[443][0])
    assert outside == {"0.0.0.0/0": PRIVATE - {"fc00::/7"} | {"169.254.0.0/16"}, "::/0": {"fc00::/7", "fe80::/10"}}, str(outside)


def dns_is_reached():
    """  DNS: kube-dns, NodeLocal DNSCache by its address, the service's or its label, and OpenShift's."""
    ends, protocols = reaches()[53]
    assert protocols == {"UDP", "TCP"}, str(protocols)
    assert blocks(ends).keys() == PRIVATE | {"169.254.0.0/16"}, str(blocks(ends).keys())
    selected = [end for end in ends if "ipBlock" not in end]
    right = [pods_in("kube-system", **{"k8s-app": app}) for app in ("kube-dns", "node-local-dns")]
    assert selected == right, str(selected)
    ends, protocols = reaches()[5353]
    right = [pods_in("openshift-dns", **{"dns__operator__openshift__io___daemonset-dns": "default"})]
    assert ends == right and protocols == {"UDP", "TCP"}, f"OpenShift: {ends}"


def the_broker_is_reached():
    """  broker and Redis: any private address, 100.64.0.0/10 and IPv6 among them."""
    for port in (5671, 5672, 6379, 6380):
        assert blocks(reaches()[port][0]).keys() == PRIVATE, f"port {port}: {blocks(reaches()[port][0]).keys()}"


def only_the_try_out_pretends():
    """  the sandbox is in the try-out alone, in an image of its own, and production has no secrets."""
    signs = {"ESMS_URL": "ESMS_URL" in settings(WORKER), "sandbox": "sandbox" in INIT}
    assert set(signs.values()) == {TRY_OUT}, str(signs)
    assert not TRY_OUT or INIT["sandbox"]["image"] == f"esms-otp-sandbox:{VERSION}", INIT["sandbox"]["image"]
    assert bool(of_kind("Secret")) == (TRY_OUT or EXAMPLE), "secrets"


def the_metrics_are_found():
    """  the PodMonitor finds the workers; the balance is asked for, or its alerts are dead."""
    monitor = the("PodMonitor")["spec"]
    assert selects(monitor["selector"], LABELS), str(monitor["selector"])
    [endpoint] = monitor["podMetricsEndpoints"]
    assert endpoint["port"] == WORKER["ports"][0]["name"] and endpoint["path"] == "/metrics", str(endpoint)
    assert seconds(setting("ESMS_BALANCE_INTERVAL")) > 0, "ESMS_BALANCE_INTERVAL is off"


def the_rules_and_the_dashboard_are_there():
    """  the alerts and the dashboard are objects, as they are in deploy/prometheus and deploy/grafana."""
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules.yaml").read_text())
    assert the("PrometheusRule")["spec"] == rules, \
        "deploy/kubernetes/prometheus-rule.sh >deploy/kubernetes/components/alerts/prometheusrule.yaml was forgotten"
    dashboard = the("ConfigMap", "esms-otp-dashboard")
    assert dashboard["metadata"]["labels"].get("grafana_dashboard") == "1", "Grafana's sidecar does not find the dashboard"
    assert json.loads(dashboard["data"]["dashboard.json"]) == json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())
    # kubectl keeps a copy in an annotation, and all of those may have 256 KiB.
    assert len(json.dumps(dashboard)) < 240 * 1024, "too large for `kubectl apply`"


def the_commands_make_secrets_without_line_ends():
    """  the command in the comments and on the page makes a secret without line ends, from files that have them."""
    for document in ("deploy/kubernetes/overlays/production/kustomization.yaml", "deploy/README.md"):
        text = (ROOT / document).read_text().replace("\n#", "\n")
        [command] = re.findall(r"kubectl -n \S+ create secret generic (?:.*\\\n)*.*", text)
        with tempfile.TemporaryDirectory() as folder:
            for key in ("amqp-url", "ledger-url", "esms-api-key", "esms-secret-key"):
                pathlib.Path(folder, key).write_text("a value\r\n" if key == "ledger-url" else "a value\n")
            said = subprocess.run(["bash", "-c", f"{command} --dry-run=client --output json"], cwd=folder,
                                  capture_output=True, text=True)
        assert said.returncode == 0, said.stderr
        values = {key: base64.b64decode(value).decode() for key, value in json.loads(said.stdout)["data"].items()}
        assert values == dict.fromkeys(("amqp-url", "ledger-url", "esms-api-key", "esms-secret-key"), "a value"), \
            f"{document}: {values}"


def every_name_of_the_example_is_right():
    """  an overlay of your own: another namespace, a generated secret, `release`, image, addresses."""
    assert NAMESPACE == "login-codes" and the("Namespace", "login-codes"), NAMESPACE
    assert not re.findall(r"\besms-otp\b(?!-)", yaml.safe_dump_all(
        o for o in OBJECTS if o["kind"] not in ("ConfigMap", "PrometheusRule"))), "the namespace of production is left somewhere"
    secret = VOLUMES["secrets"]["secret"]["secretName"]
    assert re.fullmatch(r"esms-otp-worker-[a-z0-9]{10}", secret), f"{secret} has no hash"
    assert the("Secret", secret)["metadata"]["namespace"] == "login-codes"
    watched = of_kind("PodMonitor") + of_kind("PrometheusRule")
    assert len(watched) == 3, f"{len(watched)} objects of Prometheus's operator"
    for o in watched:
        labels = o["metadata"]["labels"]
        assert labels.get("release") == "kube-prometheus-stack", f"{o['kind']}/{o['metadata']['name']}: {labels}"
    assert WORKER["image"] == f"registry.example/login/esms-otp-worker:{VERSION}", WORKER["image"]
    assert POD["priorityClassName"] == the("PriorityClass", "login-codes")["metadata"]["name"]
    given = settings(WORKER)
    assert (given["HTTP_ADDR"], given["OTP_SHARED_RATE_LIMIT"]) == ("[::]:9090", "60"), str(given)
    address = base64.b64decode(the("Secret", secret)["data"]["amqp-url"]).decode()
    assert "@rabbitmq.brokers.svc:5672/otp" in address, address
    pods_are_reached()


def pods_are_reached():
    """  component in-cluster-broker: broker and Redis are found by their pods' labels, and the queues are watched."""
    rabbit = pods_in(None, app__kubernetes__io___component="rabbitmq")
    redis = pods_in(None, app__kubernetes__io___name="redis")
    for port, end in {5671: rabbit, 5672: rabbit, 6379: redis, 6380: redis}.items():
        assert end in reaches()[port][0], f"port {port}: {reaches()[port][0]}"
    monitor = the("PodMonitor", "esms-otp-broker")["spec"]
    assert monitor["selector"] == rabbit["podSelector"] and monitor["namespaceSelector"] == {"matchNames": ["brokers"]}, str(monitor)
    # As where there is no Kubernetes.
    jobs = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yaml").read_text())["scrape_configs"]
    right = [j["params"] for j in jobs if j.get("metrics_path") == "/metrics/detailed"]
    found = [e["params"] for e in monitor["podMetricsEndpoints"] if e["path"] == "/metrics/detailed"]
    assert found == right, f"{found}, but {right} in prometheus.yaml"


def the_ledger_is_in_memory():
    """  component memory-ledger: no address of Redis is looked for."""
    given = settings(WORKER)
    assert given["OTP_LEDGER_URL"] == "memory:" and "OTP_LEDGER_URL_FILE" not in given, str(given)
    assert given["OTP_SHARED_RATE_LIMIT"] == "", "without Redis a worker refuses it"


def traces_are_taken():
    """  component otlp: the collector's address is set, and its namespace is reached."""
    host, port = re.fullmatch(r"http://[^.]+\.([^.]+)\.svc:(\d+)", settings(WORKER)["OTEL_EXPORTER_OTLP_ENDPOINT"]).groups()
    ends, _ = reaches()[int(port)]
    assert ends == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": host}}}], str(ends)


def the_ca_is_trusted():
    """  component private-ca: workers and KEDA trust the CA that the overlay's ConfigMap holds."""
    name = VOLUMES["ca"]["configMap"]["name"]
    held = the("ConfigMap", name)["data"]
    assert re.fullmatch(r"esms-otp-worker-ca-[a-z0-9]{10}", name) and held["tls"] == "enable", f"{name}: {held}"
    [mount] = [m for m in WORKER["volumeMounts"] if m["name"] == "ca"]
    for file in ("AMQP_CA_FILE", "OTP_LEDGER_CA_FILE"):
        assert settings(WORKER)[file] == f"{mount['mountPath']}/ca.crt", file
    told = {t["parameter"]: (t["name"], t["key"]) for t in the("TriggerAuthentication")["spec"]["configMapTargetRef"]}
    assert told == {"tls": (name, "tls"), "ca": (name, "ca.crt")}, str(told)


EVERYWHERE = [
    every_name_is_a_setting, check_sees_what_the_worker_sees, the_grace_is_longer_than_the_workers,
    secrets_are_files, capacity_is_kept, probes_are_served, pods_are_restricted, no_pod_has_a_token,
    resources_are_bounded, the_image_is_this_version, all_is_in_one_namespace, the_network_is_narrow,
    dns_is_reached, only_the_try_out_pretends,
]
PRODUCTION = [the_metrics_are_found, the_rules_and_the_dashboard_are_there, keda.scales_the_workers, keda.falls_back,
              keda.the_target_follows_from_the_rate, keda.does_not_knock_harder]
OWN = {
    "production": [the_broker_is_reached, the_commands_make_secrets_without_line_ends],
    "example": [every_name_of_the_example_is_right],
    "in-cluster-broker": [pods_are_reached],
    "memory-ledger": [the_ledger_is_in_memory],
    "openshift": [keda.openshift_is_asked],
    "otlp": [traces_are_taken],
    "private-ca": [the_ca_is_trusted],
}

run(EVERYWHERE + ([] if TRY_OUT else PRODUCTION) + OWN.get(OVERLAY, []))
