#!/usr/bin/env python3
"""Reads deploy/prometheus/rules.yaml; run by itself, checks what promtool does not: that every alert says
what a person needs, has its section in the runbook, and has tests in which it fires and in which it does not.
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


def wrong_with(alert, runbook, tests):
    keys, name = alert.keys, alert.name
    if keys.get("severity") not in ("page", "ticket"):
        yield "its severity is neither page nor ticket"
    for key in ("summary", "description"):
        if not keys.get(key):
            yield f"it has no {key}"
    if keys.get("runbook_url") != f"deploy/runbook.md#{name.lower()}":
        yield f"its runbook_url does not lead to #{name.lower()}"
    if name not in runbook:
        yield "the runbook has no section about it"
    for part in PARTS:
        if name in runbook and f"**{part}" not in runbook[name]:
            yield f"its section in the runbook does not say “{part}”"
    if not re.search(rf"alertname: {name}\n +exp_alerts:\n +- exp_labels", tests):
        yield "no test has it fire"
    if f"alertname: {name}, exp_alerts: []" not in tests:
        yield "no test has it stay quiet"


def wrong_with_the_runbook(runbook, alerts):
    for heading in runbook:
        if heading.startswith("Otp") and heading not in alerts:
            yield f"runbook: there is no alert {heading}"
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.rs"))
    for message in re.findall(r'\.message == "([^"]+)"', RUNBOOK.read_text(encoding="utf-8")):
        if f'"{message}"' not in source:
            yield f"runbook: no log line says: {message}"


def main():
    rules = read()
    alerts = [rule for rule in rules if rule.kind == "alert"]
    runbook = sections()
    tests = "".join(path.read_text(encoding="utf-8") for path in sorted(TESTS.glob("*.yaml")))
    wrong = [f"{alert.name}: {what}" for alert in alerts for what in wrong_with(alert, runbook, tests)]
    wrong += wrong_with_the_runbook(runbook, {alert.name for alert in alerts})
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{len(rules)} rules, {len(alerts)} alerts: each with its words, its section in the runbook and its tests")


if __name__ == "__main__":
    main()
