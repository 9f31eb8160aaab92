#!/usr/bin/env python3
"""Checks deploy/grafana/dashboard.json, and every metric and label that it, the rules and the runbook name.

dashboard.py METRICS                      METRICS is a file with the text of a worker's /metrics
dashboard.py METRICS --prometheus URL     and every query of every panel has data in that Prometheus
"""

import argparse
import json
import math
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import time

import promql
import rules
import tiles
from tiles import filled_in

# What Prometheus puts on every sample of a target, or the operator of one does.
TARGET = {"job", "instance", "namespace", "pod"}

# Every alert of rules.yaml has it.
SERVICE = ("service", "=", "esms-otp-worker")

# What others export, by label.
OTHERS = {
    # RabbitMQ's plugin rabbitmq_prometheus, at /metrics/detailed and at /metrics/per-object.
    "rabbitmq_detailed_queue_messages_ready": {"vhost", "queue"},
    "rabbitmq_queue_messages_ready": {"vhost", "queue"},
    "rabbitmq_detailed_queue_consumers": {"vhost", "queue"},
    "rabbitmq_queue_consumers": {"vhost", "queue"},
    "rabbitmq_alarms_memory_used_watermark": set(),
    "rabbitmq_alarms_free_disk_space_watermark": set(),
    "rabbitmq_alarms_file_descriptor_limit": set(),
    # kube-state-metrics.
    "kube_deployment_spec_replicas": {"deployment"},
    "kube_deployment_status_condition": {"deployment", "condition", "status", "reason"},
    "kube_deployment_status_replicas_updated": {"deployment"},
    "kube_pod_container_status_restarts_total": {"pod", "container"},
    "kube_pod_container_status_waiting_reason": {"pod", "container", "reason"},
    "kube_pod_init_container_status_waiting_reason": {"pod", "container", "reason"},
    "kube_horizontalpodautoscaler_spec_max_replicas": {"horizontalpodautoscaler"},
    "kube_horizontalpodautoscaler_status_current_replicas": {"horizontalpodautoscaler"},
    "kube_horizontalpodautoscaler_status_condition": {"horizontalpodautoscaler", "condition", "status"},
    # Prometheus itself.
    "ALERTS": {"alertname", "alertstate", "severity", "service"},
    "ALERTS_FOR_STATE": {"alertname", "severity", "service"},
    "up": set(),
}

SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
WIDTH = 24


def live(path):
    """Every sample's name in the text of /metrics, with the values of each of its labels."""
    metrics = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        sample = SAMPLE.match(line)
        if sample and not line.startswith("#"):
            labels = metrics.setdefault(sample[1], {})
            for label, value in LABEL.findall(sample[2] or ""):
                labels.setdefault(label, set()).add(value)
    return metrics


class Expressions:
    """Where each expression comes from, and what it may name."""

    def __init__(self, metrics):
        self.metrics = metrics
        self.rules = rules.read()
        self.recorded = rules.recorded_labels(self.rules)
        self.used = set()

    def labels_of(self, metric):
        if metric in self.metrics:
            return set(self.metrics[metric]) | TARGET
        if metric in self.recorded:
            return self.recorded[metric]
        return OTHERS[metric] | TARGET if metric in OTHERS else None

    def wrong_with(self, expr):
        names, known = promql.named(expr), set()
        for selector in names.selectors:
            self.used.add(selector.metric)
            labels = self.labels_of(selector.metric)
            if labels is None:
                yield f"there is no metric {selector.metric}"
                continue
            known |= labels
            for label, operator, value in selector.matchers:
                if label not in labels:
                    yield f"{selector.metric} has no label {label}"
                elif not self.has_value(selector.metric, label, operator, value):
                    yield f"{selector.metric} never has {label}{operator}{value}"
        for label in sorted((names.by | names.on | set().union(*names.made.values())) - known - TARGET - set(names.made)):
            yield f"nothing in it has the label {label}"

    def has_value(self, metric, label, operator, value):
        values = self.metrics.get(metric, {}).get(label)
        if values is None or label in TARGET or value in ("", ".*"):
            return True
        if operator in ("=~", "!~"):
            return all(any(re.fullmatch(part, known) for known in values) for part in value.split("|"))
        return value in values


def panels_of(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def wrong_with_panel(panel):
    defaults = panel["fieldConfig"]["defaults"]
    if not panel.get("title"):
        yield "no title"
    if not panel.get("description"):
        yield "no description"
    if not defaults.get("unit"):
        yield "no unit"
    if not defaults.get("thresholds", {}).get("steps"):
        yield "no thresholds"
    if panel["type"] == "timeseries" and not panel["options"]["legend"]["showLegend"]:
        yield "its legend is hidden"
    for target in panel["targets"]:
        if not target.get("legendFormat"):
            yield f"query {target['refId']} has no legend"
        if target["datasource"]["uid"] != "${datasource}":
            yield f"query {target['refId']} does not ask the datasource that was chosen"
        # The last value of a range is one from before the outage.
        if panel["type"] != "timeseries" and (target["range"] or not target["instant"]):
            yield f"query {target['refId']} is not of this moment"
        yield from wrong_with_query(panel, target)
    if panel["type"] == "stat" and panel["options"]["graphMode"] != "none":
        yield "a query of this moment has no graph behind its number"
    if panel["type"] == "stat" and defaults["noValue"] != tiles.shown(panel, "", None)[0]:
        yield "without data it says one thing, and for null another"


def wrong_with_query(panel, target):
    names = promql.named(target["expr"])
    for selector in names.selectors:
        labels = [label for label, _, _ in selector.matchers]
        if selector.metric.startswith("ALERTS") and (SERVICE not in selector.matchers or "namespace" in labels):
            yield f"{selector.metric} is not chosen by {''.join(SERVICE)} alone: some alerts have no namespace, or another"
        if selector.metric.startswith(("otp:queue_", "rabbitmq_")) and ("vhost", "=", "$vhost") not in selector.matchers:
            yield f"{selector.metric} is of every virtual host"
    if "instance" in names.by or (names.made and names.made.get("worker") != {"instance", "pod"}):
        yield f"query {target['refId']} is by address, not by pod and else by address"
    # Of what is usually between 95 and 100 %, an axis from 0 shows one line.
    of_all = 'outcome="accepted"' in target["expr"] and "histogram_quantile" not in target["expr"]
    defaults = panel["fieldConfig"]["defaults"]
    if panel["type"] == "timeseries" and of_all and (defaults["custom"]["axisSoftMin"] != 0.8 or "min" in defaults):
        yield "its axis does not begin at 80 %, or cannot begin lower"


def wrong_with_dashboard(dashboard):
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    for missing in {"datasource", "namespace", "instance", "vhost", "runbook"} - set(variables):
        yield f"there is no variable {missing}"
        return
    if variables["vhost"]["multi"] or variables["vhost"]["includeAll"]:
        yield "more than one virtual host can be chosen"
    runbook = variables["runbook"]["query"]
    if not runbook.startswith("https://"):
        yield f"the runbook's address leads nowhere from Grafana: {runbook}"
    for url in {alert.keys["runbook_url"].split("#")[0] for alert in rules.read() if alert.kind == "alert"} - {runbook}:
        yield f"an alert's runbook is at {url}, the dashboard's at {runbook}"
    if not any(link["url"] == "$runbook" for link in dashboard["links"]):
        yield "no link leads to the runbook"
    lists = [panel for panel in panels_of(dashboard) if panel["type"] == "table" and "by (alertname" in panel["targets"][0]["expr"]]
    if not lists:
        yield "no table has the names of the alerts that fire"
    for panel in lists:
        if "${runbook}" not in json.dumps(panel["fieldConfig"]["overrides"]):
            yield f"{panel['title']}: a name does not lead to the runbook"
    for metric in ("process_start_time_seconds", "otp_circuit_open"):
        if not any(annotation["enable"] and metric in annotation["expr"] for annotation in dashboard["annotations"]["list"]):
            yield f"no annotation shows {metric}"


def wrong_with_picture(path):
    """It is read in the README, about 830 pixels wide: two rows of panels, not the whole dashboard."""
    head = path.read_bytes()[:24]
    width, height = struct.unpack(">II", head[16:24])
    if path.stat().st_size > 250_000:
        yield f"{path.name} has {path.stat().st_size} bytes, more than 250,000"
    if width > 2 * 830 or height > 0.8 * width:
        yield f"{path.name} is {width} by {height} pixels: nobody can read it at 830"


def wrong_with_layout(dashboard):
    taken, ids = {}, set()
    for panel in dashboard["panels"]:
        name, at = panel["title"], panel["gridPos"]
        if panel["id"] in ids:
            yield f"{name}: its id {panel['id']} is another's too"
        ids.add(panel["id"])
        if at["x"] + at["w"] > WIDTH:
            yield f"{name}: it sticks out on the right"
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            if taken.setdefault(cell, name) != name:
                yield f"{name}: it covers {taken[cell]}"
                break
    titles = [panel["title"] for panel in panels_of(dashboard)]
    for title in {title for title in titles if titles.count(title) > 1}:
        yield f"two panels are called {title}"


def wrong_with_legends(panel, expressions):
    for target in panel["targets"]:
        names = promql.named(target["expr"])
        labels = names.by or set().union(*(expressions.labels_of(each.metric) or set() for each in names.selectors))
        for label in re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")):
            if label not in labels:
                yield f"its legend names {label}, which nothing in query {target['refId']} has"


def runbook_queries():
    blocks = re.findall(r"^ *```promql\n(.*?)^ *```", rules.RUNBOOK.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def all_expressions(dashboard, read_rules):
    """Every expression, with a name for it."""
    for panel in panels_of(dashboard):
        for target in panel["targets"]:
            yield f"panel “{panel['title']}” {target['refId']}", filled_in(target["expr"])
    for annotation in dashboard["annotations"]["list"]:
        yield f"annotation “{annotation['name']}”", filled_in(annotation["expr"])
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            query = re.fullmatch(r"query_result\((.*)\)|label_values\((.*), \w+\)", variable["query"]["query"])
            yield f"variable {variable['name']}", filled_in(query[1] or query[2])
    for rule in read_rules:
        yield f"rule {rule.name}", rule.expr
    for query in runbook_queries():
        yield f"runbook “{query}”", query


def unparsed(expressions):
    """What promtool says of expressions it does not understand. JSON is YAML, so each becomes a rule."""
    group = [{"record": f"check:{place}", "expr": expr} for place, (_, expr) in enumerate(expressions)]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump({"groups": [{"name": "check", "rules": group}]}, file)
        file.flush()
        ran = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True)
    if ran.returncode == 0:
        return
    for said in (ran.stdout + ran.stderr).splitlines():
        place = re.search(r"check:(\d+)", said)
        named = f"{expressions[int(place[1])][0]}: " if place else ""
        if place or "error" in said:
            yield named + said.strip()


def asked(prometheus, query, seconds):
    """The series of a query over the last seconds, as {labels, values} each."""
    end = time.time()
    return tiles.answer(prometheus, "query_range", query=query, start=end - seconds, end=end, step=max(1, seconds // 200))


def without_data(dashboard, prometheus, seconds):
    for panel in panels_of(dashboard):
        for target in panel["targets"]:
            series = asked(prometheus, filled_in(target["expr"], seconds), seconds)
            values = [float(value) for each in series for _, value in each["values"]]
            # Nothing fires where all is well.
            of_alerts = panel["type"] == "table" and "ALERTS" in target["expr"]
            if not of_alerts and not any(math.isfinite(value) for value in values):
                yield f"panel “{panel['title']}” {target['refId']} has no data: {filled_in(target['expr'], seconds)}"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("metrics", type=pathlib.Path)
    arguments.add_argument("--prometheus", metavar="URL")
    arguments.add_argument("--since", metavar="SECONDS", type=int, default=300, help="how far back there must be data")
    given = arguments.parse_args()

    dashboard = tiles.read()
    expressions = Expressions(live(given.metrics))
    named = list(all_expressions(dashboard, expressions.rules))
    wrong = [*wrong_with_layout(dashboard), *wrong_with_dashboard(dashboard)]
    # With a Prometheus it is about to be drawn.
    if not given.prometheus:
        wrong += wrong_with_picture(tiles.DASHBOARD.with_suffix(".png"))
    for panel in panels_of(dashboard):
        wrong += [f"panel “{panel['title']}”: {what}" for what in wrong_with_panel(panel)]
        wrong += [f"panel “{panel['title']}”: {what}" for what in wrong_with_legends(panel, expressions)]
    for name, expr in named:
        wrong += [f"{name}: {what}" for what in expressions.wrong_with(expr)]
    wrong += [f"rule {name}: nothing uses it" for name in expressions.recorded if name not in expressions.used]
    wrong += unparsed(named)
    if given.prometheus:
        wrong += without_data(dashboard, given.prometheus, given.since)
    if wrong:
        sys.exit("\n".join(wrong))
    data = ", and every query of a panel has data" if given.prometheus else ""
    print(f"{len(panels_of(dashboard))} panels and {len(named)} expressions: all in order{data}")


if __name__ == "__main__":
    main()
