#!/usr/bin/env python3
"""Reads deploy/prometheus/rules.yaml; run by itself, checks what promtool does not: that every alert says whose it is
and what a person needs, has its section in the runbook, and has tests in which it fires, in which it does not, and in
which it ends; and that alertmanager.yaml names alerts that there are.
"""

import pathlib
import re
import sys
from dataclasses import dataclass, field

from promql import named

ROOT = pathlib.Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/prometheus/rules.yaml"
TESTS = ROOT / "deploy/prometheus/tests"
RUNBOOK = ROOT / "deploy/runbook.md"
ALERTMANAGER = ROOT / "deploy/prometheus/alertmanager.yaml"
SERVICE = "esms-otp-worker"

# What the runbook says about every alert.
PARTS = ["It means", "At the login screen", "Look at", "Do"]


@dataclass
class Rule:
    """One rule: what it records, or the alert's name."""

    kind: str
    name: str
    keys: dict = field(default_factory=dict)

    @property
    def expr(self):
        return self.keys["expr"]


def read(path=RULES):
    """The rules. Python has no YAML of its own; the layout of our file is read by its indents, and
    prometheus.sh holds the number found against promtool's."""
    rules, key, indent = [], None, 0
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        depth = len(line) - len(line.lstrip())
        start = re.fullmatch(r" {6}- (record|alert): (\S+)", line)
        pair = re.fullmatch(r" +(\w+):(?: (.*))?", line)
        if start:
            rules.append(Rule(*start.groups()))
            key = None
        elif key and depth > indent:
            rules[-1].keys[key] = f"{rules[-1].keys[key]} {line.strip()}".strip()
        elif rules and pair and depth >= 8:
            key, indent, value = pair[1], depth, pair[2] or ""
            rules[-1].keys[key] = "" if value in ("|", ">-") else value.strip("\"'")
            key = key if value in ("|", ">-") else None
    return rules


def recorded_labels(rules):
    """The labels of each recorded series: those it is summed by, or those of what it is made of."""
    labels = {}
    for rule in rules:
        if rule.kind == "record":
            names = named(rule.expr)
            made_of = (labels.get(selector.metric, set()) for selector in names.selectors)
            labels[rule.name] = names.by.union(*made_of)
    return labels


def sections():
    """The runbook's text by heading."""
    parts = re.split(r"^#+ (.+)$", RUNBOOK.read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def seconds(duration):
    """1h30m as a number; no duration is 0."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([smhd])", duration or ""))


def outcomes():
    """What the tests expect of each alert: for each test, the times at which it fires and at which it is quiet."""
    found = {}
    for path in sorted(TESTS.glob("*.yaml")):
        for place, test in enumerate(path.read_text(encoding="utf-8").split("\n  - name: ")[1:]):
            for time, alert, expected in re.findall(r"eval_time: (\w+)(?:, |\n +)alertname: (\w+)(?:, |\n +)exp_alerts: ?(.*)", test):
                fires, quiet = found.setdefault(alert, {}).setdefault((path, place), ([], []))
                (quiet if expected.startswith("[]") else fires).append(seconds(time))
    return found


def wrong_with_tests(tests):
    if not any(fires for fires, _ in tests):
        yield "no test has it fire"
    if not any(quiet for _, quiet in tests):
        yield "no test has it stay quiet"
    if not any(fires and quiet and max(quiet) > min(fires) for fires, quiet in tests):
        yield "no test has it end after it fired"


def wrong_with(alert, runbook):
    keys, name = alert.keys, alert.name
    if keys.get("severity") not in ("page", "ticket"):
        yield "its severity is neither page nor ticket"
    if keys.get("service") != SERVICE:
        yield f"its label service is not {SERVICE}"
    if seconds(keys.get("keep_firing_for")) < 300:
        yield "its keep_firing_for is less than five minutes: it would come and go"
    for key in ("summary", "description"):
        if not keys.get(key):
            yield f"it has no {key}"
    if not re.fullmatch(rf"https://[^#\s]+#{name.lower()}", keys.get("runbook_url", "")):
        yield f"its runbook_url is not absolute, or does not lead to #{name.lower()}"
    if name not in runbook:
        yield "the runbook has no section about it"
    for part in PARTS:
        if name in runbook and f"**{part}" not in runbook[name]:
            yield f"its section in the runbook does not say “{part}”"


def wrong_with_reading(rule):
    """Every worker's samples of more than a day are too many to read at every evaluation: record first, by minutes."""
    for metric, number, unit in re.findall(r"([\w:]+)(?:\{[^}]*\})?\[(\d+)([dwy])\]", rule.expr):
        if ":" not in metric and (unit != "d" or int(number) > 1):
            yield f"it reads {number}{unit} of {metric}, which nobody has recorded in short"


def wrong_with_the_runbook(runbook, alerts):
    for heading in runbook:
        if heading.startswith("Otp") and heading not in alerts:
            yield f"runbook: there is no alert {heading}"
    if "logs POD -c check" not in RUNBOOK.read_text(encoding="utf-8"):
        yield "runbook: it does not say how to read what check says in its container"
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.rs"))
    for message in re.findall(r'\.message == "([^"]+)"', RUNBOOK.read_text(encoding="utf-8")):
        if f'"{message}"' not in source:
            yield f"runbook: no log line says: {message}"


def wrong_with_alertmanager(alerts):
    """Its routes and inhibitions are by names and labels that alerts have, and only a page hides anything."""
    text = ALERTMANAGER.read_text(encoding="utf-8")
    for source, matchers in re.findall(r"(source|target)_matchers: \[(.*)\]", text):
        names = re.search(r'alertname=~?"([^"]+)"', matchers)
        if f'service="{SERVICE}"' not in matchers or not names:
            yield f"alertmanager.yaml: no service or no alertname in {matchers}"
            continue
        for name in names[1].split("|"):
            if name not in alerts:
                yield f"alertmanager.yaml: there is no alert {name}"
            elif source == "source" and alerts[name].keys["severity"] != "page":
                yield f"alertmanager.yaml: {name} is a ticket, and hides others"


def main():
    rules = read()
    alerts = [rule for rule in rules if rule.kind == "alert"]
    runbook = sections()
    tests = outcomes()
    wrong = []
    for alert in alerts:
        problems = [*wrong_with(alert, runbook), *wrong_with_tests(tests.get(alert.name, {}).values())]
        wrong += [f"{alert.name}: {what}" for what in problems]
    wrong += [f"{rule.name}: {what}" for rule in rules for what in wrong_with_reading(rule)]
    if len({alert.keys.get("runbook_url", "").partition("#")[0] for alert in alerts}) != 1:
        wrong.append("the runbook_urls lead to more than one place")
    by_name = {alert.name: alert for alert in alerts}
    wrong += wrong_with_the_runbook(runbook, by_name)
    wrong += wrong_with_alertmanager(by_name)
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{len(rules)} rules, {len(alerts)} alerts: each with its words, its section in the runbook and its tests")


if __name__ == "__main__":
    main()
