"""What must hold of KEDA's objects: that they lead somewhere, and how many workers they ask for."""

import pathlib
import re
import subprocess
import tempfile

import yaml

from rendered import (DEPLOYMENT, MONITORING, NAME, NAMESPACE, OVERLAY, VOLUMES, WORKER, setting, settings, the, triggers)
from settings import METRICS


def scales_the_workers():
    """  KEDA scales the Deployment, nobody else does, and every name it is given leads to something."""
    spec = the("ScaledObject")["spec"]
    assert spec["scaleTargetRef"]["name"] == NAME and "replicas" not in DEPLOYMENT["spec"], "replicas"
    assert 2 <= spec["minReplicaCount"] <= spec["maxReplicaCount"], "the bounds"
    backlog = triggers()["backlog"]
    assert backlog["metadata"]["queueName"] == setting("OTP_QUEUE"), "another queue"
    [host] = the("TriggerAuthentication", backlog["authenticationRef"]["name"])["spec"]["secretTargetRef"]
    secret = VOLUMES["secrets"]["secret"]["secretName"]
    assert host["name"] == secret, f"KEDA's secret is {host['name']}, the worker's {secret}"
    assert settings(WORKER)["AMQP_URL_FILE"].endswith(f"/{host['key']}"), "another key of it"
    query = triggers()["braked"]["metadata"]["query"]
    names = set(re.findall(r"\b(?:otp|esms)_[a-z_]+", query))
    assert names <= METRICS, f"no such metrics: {names - METRICS}"
    assert re.findall(r'namespace="([^"]*)"', query) == [NAMESPACE], f"not only the namespace {NAMESPACE}: {query}"
    if OVERLAY != "openshift":
        address = triggers()["braked"]["metadata"]["serverAddress"]
        assert address == f"http://prometheus-operated.{MONITORING}.svc:9090", address


def falls_back():
    """  while Prometheus is away, KEDA's fallback counts, once, and takes no worker away."""
    spec = the("ScaledObject")["spec"]
    # It is counted for each trigger that fails, and only for an average and a whole number.
    assert [t["type"] for t in spec["triggers"]] == ["rabbitmq", "prometheus"], "more than one trigger for Prometheus"
    modifiers, fallback = spec["advanced"]["scalingModifiers"], spec["fallback"]
    assert modifiers["metricType"] == "AverageValue" and modifiers["target"].isdigit(), str(modifiers)
    assert fallback["behavior"] == "currentReplicasIfHigher", str(fallback)
    assert spec["minReplicaCount"] <= fallback["replicas"] <= spec["maxReplicaCount"], str(fallback)


def the_target_follows_from_the_rate():
    """  the scaling target is in the formula, and is what a worker may call in ten seconds."""
    spec = the("ScaledObject")["spec"]
    modifiers = spec["advanced"]["scalingModifiers"]
    numbers = re.findall(r"\d\d+", modifiers["formula"]) + [triggers()["backlog"]["metadata"]["value"]]
    assert numbers == [modifiers["target"]] * 3, f"{numbers} for a target of {modifiers['target']}"
    given = settings(WORKER)
    rates = [float(given["OTP_SHARED_RATE_LIMIT"]) / spec["maxReplicaCount"]] if given.get("OTP_SHARED_RATE_LIMIT") else []
    rates += [float(given["OTP_RATE_LIMIT"])] if "OTP_RATE_LIMIT" in given else []
    for rate in rates:
        assert abs(int(modifiers["target"]) - 10 * rate) <= 1, f"{modifiers['target']} for {rate} calls a second of a worker"


def wanted(**values):
    """How many workers the formula asks for, as the autoscaler reckons: rounded up, within the bounds."""
    spec = the("ScaledObject")["spec"]
    modifiers = spec["advanced"]["scalingModifiers"]
    condition, yes, no = re.fullmatch(r"(.*) \? (.*) : (.*)", modifiers["formula"]).groups()
    names = set(re.findall(r"[a-z_]+", modifiers["formula"]))
    assert names == triggers().keys() == values.keys(), f"{names} are not the triggers"
    python = f"({yes}) if ({condition}) else ({no})".replace("&&", "and").replace("||", "or")
    workers = -(-eval(python, {"__builtins__": {}}, values) // float(modifiers["target"]))
    return max(spec["minReplicaCount"], min(spec["maxReplicaCount"], int(workers)))


def does_not_knock_harder():
    """  no worker is added while eSMS takes no calls, by KEDA's query and its formula; one bad node is no brake."""
    query = triggers()["braked"]["metadata"]["query"]
    most = the("ScaledObject")["spec"]["maxReplicaCount"]
    # Of 100 calls a reading: not sent, answered with 160, with 103; the rate found 90 and 45 seconds ago;
    # open circuits of the four workers; whether they are braked.
    cases = [
        ("all is well", 0, 0, 0, (0, 0), 0, False),
        ("a third of the calls find no connection, or get 503", 33, 0, 0, (0, 0), 0, True),
        ("code 160, which is `answered`", 0, 40, 0, (0, 0), 0, True),
        ("a tenth of the calls get 160", 0, 10, 0, (0, 0), 0, False),
        ("both together are over a fifth", 12, 12, 0, (0, 0), 0, True),
        ("no balance: 103", 0, 0, 90, (0, 0), 0, False),
        ("throttled within the last minute", 0, 0, 0, (0, 7.5), 0, True),
        ("throttled before", 0, 0, 0, (7.5, 0), 0, False),
        ("one bad node of four", 0, 0, 0, (0, 0), 1, False),
        ("most circuits open", 0, 0, 0, (0, 0), 3, True),
    ]
    tests = []
    for name, not_sent, over, balance, (earlier, later), circuits, braked in cases:
        def series(metric, values, pod="a", namespace=NAMESPACE, **labels):
            given = ",".join(f'{k}="{v}"' for k, v in {"namespace": namespace, "pod": pod, **labels}.items())
            return {"series": f"{metric}{{{given}}}", "values": values}
        tests.append({
            "name": name, "interval": "15s",
            "input_series": [
                *[series("otp_build_info", "1x20", pod) for pod in "abcd"],
                *[series("otp_circuit_open", f"{int(place < circuits)}x20", pod) for place, pod in enumerate("abcd")],
                series("otp_attempts_total", f"0+{not_sent}x20", **{"class": "not_sent"}),
                series("otp_attempts_total", f"0+{100 - not_sent}x20", **{"class": "answered"}),
                series("otp_code_results_total", f"0+{over}x20", code="160", scope="throttle"),
                series("otp_code_results_total", f"0+{balance}x20", code="103", scope="account"),
                series("otp_rate_found", f"0x13 {earlier} 0 0 {later} 0x3"),
                # A neighbour that is in trouble is none of ours.
                series("otp_build_info", "1x20", namespace="neighbour"),
                series("otp_circuit_open", "1x20", namespace="neighbour"),
                series("otp_rate_found", "5x20", namespace="neighbour"),
            ],
            "promql_expr_test": [{"expr": query, "eval_time": "5m", "exp_samples": [
                {"labels": f'{{namespace="{NAMESPACE}"}}', "value": 4}] if braked else []}],
        })
        got = wanted(backlog=100000, braked=4 if braked else 0)
        assert got == (4 if braked else most), f"{name}: {got} workers for 100,000 jobs"
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "tests.yaml")
        file.write_text(yaml.safe_dump({"evaluation_interval": "15s", "tests": tests}))
        said = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
    target = int(the("ScaledObject")["spec"]["advanced"]["scalingModifiers"]["target"])
    for backlog, braked, right in [(0, 0, 3), (5 * target, 0, 5), (3 * target + 1, 6, 4), (9 * target, 6, 6)]:
        got = wanted(backlog=backlog, braked=braked)
        assert got == right, f"{got}, not {right}, workers for {backlog} jobs and {braked} braked workers"


def openshift_is_asked():
    """  component openshift: KEDA asks Thanos, with a token and for the namespace."""
    trigger = triggers()["braked"]
    given = {k: v for k, v in trigger["metadata"].items() if k != "query"}
    assert given == {"serverAddress": "https://thanos-querier.openshift-monitoring.svc.cluster.local:9092",
                     "threshold": "1", "authModes": "bearer", "namespace": NAMESPACE}, str(given)
    assert trigger["authenticationRef"] == {"name": "thanos"}, str(trigger["authenticationRef"])
