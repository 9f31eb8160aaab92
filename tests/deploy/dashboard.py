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
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import promql
import rules

GRAFANA = rules.ROOT / "deploy/grafana"

# What Prometheus puts on every sample of a target, or the operator of one does.
TARGET = {"job", "instance", "namespace"}

# What others export, by label.
OTHERS = {
    # RabbitMQ's plugin rabbitmq_prometheus, at /metrics/detailed and at /metrics/per-object.
    "rabbitmq_detailed_queue_messages_ready": {"vhost", "queue"},
    "rabbitmq_queue_messages_ready": {"vhost", "queue"},
    "rabbitmq_detailed_queue_consumers": {"vhost", "queue"},
    "rabbitmq_queue_consumers": {"vhost", "queue"},
    # Prometheus itself.
    "ALERTS": {"alertname", "alertstate", "severity"},
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


def filled_in(text, seconds=3600, interval="30s"):
    """A query as Grafana would send it with everything chosen."""
    text = text.replace("$__rate_interval", interval).replace("$__range", f"{seconds}s")
    return re.sub(r"\$(namespace|instance)\b", ".*", text)


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
        for label in sorted((names.by | names.on) - known - TARGET):
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
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    for missing in {"datasource", "namespace", "instance"} - variables:
        yield f"there is no variable {missing}"


def wrong_with_legends(panel, expressions):
    for target in panel["targets"]:
        names = promql.named(target["expr"])
        labels = names.by.union(*(expressions.labels_of(each.metric) or set() for each in names.selectors))
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
    step = max(1, seconds // 200)
    parameters = {"query": query, "start": end - seconds, "end": end, "step": step}
    url = f"{prometheus.rstrip('/')}/api/v1/query_range?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)["data"]["result"]


def without_data(dashboard, prometheus, seconds):
    for panel in panels_of(dashboard):
        for target in panel["targets"]:
            series = asked(prometheus, filled_in(target["expr"], seconds), seconds)
            values = [float(value) for each in series for _, value in each["values"]]
            if not any(math.isfinite(value) for value in values):
                yield f"panel “{panel['title']}” {target['refId']} has no data: {filled_in(target['expr'], seconds)}"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("metrics", type=pathlib.Path)
    arguments.add_argument("--prometheus", metavar="URL")
    arguments.add_argument("--since", metavar="SECONDS", type=int, default=300, help="how far back there must be data")
    given = arguments.parse_args()

    dashboard = json.loads((GRAFANA / "dashboard.json").read_text(encoding="utf-8"))
    expressions = Expressions(live(given.metrics))
    named = list(all_expressions(dashboard, expressions.rules))
    wrong = list(wrong_with_layout(dashboard))
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
