#!/usr/bin/env python3
"""What the tiles above the graphs of deploy/grafana/dashboard.json show: their own queries, asked for one moment, in the words and
the colour that Grafana gives them.

tiles.py show URL [NAME=COLOUR[,COLOUR]...]   prints each for now; exit code 1 where one has another colour than given
tiles.py alerts URL FAULT MENDED NEXT         of the alerts that began to fire from FAULT to NEXT: how long after FAULT that was, and
                                              how long after MENDED they resolved (all are Unix times)
tiles.py recorded                             the first row before, during and after outages, in series written here, by promtool
"""

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

ROOT = pathlib.Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "deploy/grafana/dashboard.json"
COLOURS = {"#73BF69": "green", "#F2CC0C": "yellow", "#FF9830": "orange", "#F2495C": "red", "#8E8E8E": "grey"}


def read():
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))


def filled_in(text, seconds=3600, interval="30s"):
    """A query as Grafana would send it with everything chosen; a virtual host is chosen alone."""
    text = text.replace("$__rate_interval", interval).replace("$__range", f"{seconds}s").replace("$vhost", "/")
    return re.sub(r"\$(namespace|instance)\b", ".*", text)


def tiles(dashboard):
    """The panels with a number of the first row."""
    first_graph = min(panel["gridPos"]["y"] for panel in dashboard["panels"] if panel["type"] == "timeseries")
    return [panel for panel in dashboard["panels"] if panel["type"] == "stat" and panel["gridPos"]["y"] < first_graph]


def queries(dashboard):
    """Each number's name, panel and query. Where a panel has several, each has its legend behind its name."""
    for panel in tiles(dashboard):
        for target in panel["targets"]:
            several = f" ({target['legendFormat']})" if len(panel["targets"]) > 1 else ""
            yield panel["title"] + several, panel, target


def scaled(value, base, names):
    """A number with the prefix that leaves it short."""
    size = abs(value)
    place = min(int(math.log(size, base)), len(names) - 1) if size >= 1 else 0
    return value / base**place, names[place]


def plain(value, decimals=None):
    if decimals is not None:
        return f"{value:,.{decimals}f}"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def formatted(value, unit, decimals=None):
    """A value much as Grafana writes it."""
    if unit == "percentunit":
        return f"{plain(value * 100)}%"
    if unit == "s":
        return f"{value * 1000:.0f} ms" if abs(value) < 1 and value else f"{value:.3g} s"
    if unit == "h":
        return f"{value:.3g} h" if value < 48 else f"{value / 24:.3g} days"
    if unit == "bytes":
        return "{:.3g} {}".format(*scaled(value, 1024, ["B", "KiB", "MiB", "GiB"]))
    if unit == "currencyVND":
        return "{:.3g}{} đ".format(*scaled(value, 1000, ["", "K", " Mil", " Bil"]))
    if unit == "dateTimeFromNow":
        return f"{(time.time() - value / 1000) / 60:.0f} minutes ago"
    if unit.startswith("suffix:"):
        return f"{plain(value, decimals)} {unit.removeprefix('suffix:')}"
    return plain(value, decimals)


def steps_of(panel, name):
    """The thresholds of a series: its own, or the panel's."""
    for override in panel["fieldConfig"]["overrides"]:
        for each in override["properties"]:
            if override["matcher"]["options"] == name and each["id"] == "thresholds":
                return each["value"]["steps"]
    return panel["fieldConfig"]["defaults"]["thresholds"]["steps"]


def colour_at(steps, value):
    return [step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]


def shown(panel, name, value):
    """The words and the colour for a value. For none, the mapping of null; without one Grafana takes the lowest threshold's colour."""
    defaults = panel["fieldConfig"]["defaults"]
    if value is not None and math.isfinite(value):
        return formatted(value, defaults["unit"], defaults.get("decimals")), colour_at(steps_of(panel, name), value)
    for mapping in defaults.get("mappings", []):
        if mapping["type"] == "special" and mapping["options"]["match"] == "null+nan":
            return mapping["options"]["result"]["text"], mapping["options"]["result"]["color"]
    return defaults.get("noValue", "No data"), steps_of(panel, name)[0]["color"]


def answer(prometheus, path, **parameters):
    url = f"{prometheus.rstrip('/')}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=30) as got:
        return json.load(got)["data"]["result"]


def now(prometheus, expr):
    """The value of a query that has one series at the most."""
    got = answer(prometheus, "query", query=filled_in(expr))
    return float(got[0]["value"][1]) if got else None


def show(prometheus, *expected):
    wrong, wanted = [], dict(each.split("=") for each in expected)
    for name, panel, target in queries(read()):
        words, colour = shown(panel, target["legendFormat"], now(prometheus, target["expr"]))
        colour = COLOURS[colour]
        print(f"    {name:26} {words:26} {colour}")
        if colour not in wanted.pop(name, colour).split(","):
            wrong.append(f"“{name}” is {colour}")
    return wrong + [f"there is no tile “{name}”" for name in wanted]


def alerts(prometheus, *times):
    fault, mended, following = map(float, times)
    step, began_at = 5, {}
    query = 'max by (alertname, severity) (ALERTS{service="esms-otp-worker",alertstate="firing"})'
    firing = [each["metric"] for each in answer(prometheus, "query", query=query)]
    for each in answer(prometheus, "query_range", query=query, start=fault, end=time.time(), step=step):
        # Of one that fires twice, the first time.
        at = [float(at) for at, _ in each["values"]]
        gap = next((place for place in range(1, len(at)) if at[place] > at[place - 1] + step), len(at))
        if fault + step < at[0] < following:
            began_at[at[0], at[gap - 1]] = each["metric"]
    for (began, last), alert in sorted(began_at.items(), key=lambda each: each[0]):
        ended = "still fires" if alert in firing else f"resolved {last + step - mended:.0f} s after it was back"
        print(f"    {alert['alertname']} ({alert['severity']}): fired {began - fault:.0f} s after, {ended}")
    if not began_at:
        print("    no alert fired")
    return []


# Half an hour that is well, a quarter in which it is not, and an hour after, for the alerts that look back: a sample every 15 s.
WELL, OUT, AFTER, STEP = 120, 60, 240, 15


def counted(each, meanwhile=0):
    """A counter that grows by so much each 15 s, and by that much in the outage."""
    at = each * WELL
    return f"0+{each}x{WELL - 1} {at}+{meanwhile}x{OUT - 1} {at + meanwhile * OUT}+{each}x{AFTER}"


def gauge(value, meanwhile):
    return f"{value}x{WELL - 1} {meanwhile}x{OUT - 1} {value}x{AFTER}"


def gone(series):
    """The same, not scraped in the outage: Prometheus marks it at the first scrape that fails."""
    before, _, after = series.split()
    return f"{before} stale _x{OUT - 2} {after}"


def worker(failed=0, connected=1, there=True):
    """Of a worker that has 99 jobs accepted and one rejected every 15 s, in a quarter of a second each: what becomes of it in an outage."""
    seen = (lambda series: series) if there else gone
    all_series = {
        'otp_jobs_total{outcome="accepted"}': counted(99),
        'otp_jobs_total{outcome="rejected"}': counted(1),
        'otp_jobs_total{outcome="failed"}': counted(0, failed),
        'otp_jobs_total{outcome="limited"}': counted(0),
        "otp_broker_connected": gauge(1, connected),
        'otp_build_info{version="1"}': gauge(1, 1),
    }
    for metric, outcome in (("otp_job_duration_seconds", "accepted"), ("otp_job_queue_seconds", "")):
        for bound in ("0.25", "0.5", "10", "+Inf"):
            labels = f'le="{bound}"' + (f',outcome="{outcome}"' if outcome else "")
            all_series[f"{metric}_bucket{{{labels}}}"] = counted(0 if bound == "0.25" else 100)
        all_series[f"{metric}_count{{outcome=\"{outcome}\"}}"] = counted(100)
    all_series['otp_job_duration_seconds_count{outcome="failed"}'] = counted(0, failed)
    return {name: seen(series) for name, series in all_series.items()}


def scenario(ready, broker=True, **kind):
    """Input for promtool: two workers and a broker with two virtual hosts, of which the second is another's."""
    seen = (lambda series: series) if broker else gone
    given = []
    for instance in ("10.0.0.1:9090", "10.0.0.2:9090"):
        for name, values in worker(**kind).items():
            metric, _, labels = name.partition("{")
            labels = ",".join(filter(None, [f'job="otp",namespace="otp",instance="{instance}"', labels.rstrip("}")]))
            given.append({"series": f"{metric}{{{labels}}}", "values": values})
    for vhost, values in (("/", ready), ("other", gauge(9999, 9999))):
        for metric, depth in (("messages_ready", values), ("consumers", gauge(2, kind.get("connected", 1) if kind.get("there", True) else 0))):
            series = f'rabbitmq_detailed_queue_{metric}{{job="rabbitmq",vhost="{vhost}",queue="otp.jobs"}}'
            given.append({"series": series, "values": seen(depth)})
    return given


# Of each tile, the value and the colour. NONE is no data.
NONE = None
HEALTHY = {
    "Acceptance rate": (0.99, "green"),
    "Accepted a minute": (792, "green"),
    "Request to accepted, p95": (0.975, "green"),
    "Alerts (pages)": (0, "green"),
    "Jobs waiting": (0, "green"),
    "Workers connected": (2, "green"),
    "Held back by limits": (0, "green"),
}
NOTHING_ENDS = {
    "Acceptance rate": (NONE, "grey"),
    "Accepted a minute": (0, "orange"),
    "Request to accepted, p95": (NONE, "grey"),
    "Alerts (pages)": (1, "red"),
    "Held back by limits": (NONE, "grey"),
}
# Three minutes after a fault: what the five minutes before it were like is not said any more.
SOON = ("Acceptance rate", "Accepted a minute", "Request to accepted, p95", "Held back by limits")
OUTAGES = {
    "the broker is away": (
        scenario(gauge(0, 0), broker=False, connected=0),
        {**NOTHING_ENDS, "Jobs waiting": (NONE, "orange"), "Workers connected": (0, "red")},
    ),
    "all workers are gone": (
        scenario(f"0x{WELL - 1} 0+20x{OUT - 1} 0x{AFTER}", there=False),
        {**NOTHING_ENDS, "Jobs waiting": (800, "red"), "Workers connected": (0, "red")},
    ),
    "workers hold jobs": (
        scenario(f"0x{WELL - 1} 0+1x{OUT - 1} 0x{AFTER}"),
        {**NOTHING_ENDS, "Alerts (pages)": (NONE, ""), "Jobs waiting": (40, "yellow"), "Workers connected": (2, "green")},
    ),
    "eSMS is away": (
        scenario(gauge(0, 0), failed=100),
        {
            "Acceptance rate": (0, "red"), "Accepted a minute": (0, "orange"), "Request to accepted, p95": (NONE, "grey"), "Alerts (pages)": (1, "red"),
            "Jobs waiting": (0, "green"), "Workers connected": (2, "green"), "Held back by limits": (0, "green"),
        },
    ),
}
# No worker has ever been scraped, nor a broker: this is said. The alert about it fires.
NEVER_SEEN = {
    "Acceptance rate": (NONE, "grey"), "Accepted a minute": (NONE, "red"), "Request to accepted, p95": (NONE, "grey"),
    "Alerts (pages)": (1, "red"), "Alerts (tickets)": (0, "green"), "Jobs waiting": (NONE, "orange"),
    "Workers connected": (NONE, "red"), "Held back by limits": (NONE, "grey"), "SLO: allowance left": (NONE, "grey"),
}
# Nobody evaluates rules.yaml: that no alert fires says nothing.
WITHOUT_RULES = {
    "Acceptance rate": (0.99, "green"), "Workers connected": (2, "green"), "Jobs waiting": (NONE, "orange"),
    "Alerts (pages)": (NONE, "orange"), "Alerts (tickets)": (NONE, "orange"),
}


def wrong_colours(dashboard):
    """The colours that are asserted, of the values that are."""
    tables = [HEALTHY, NEVER_SEEN, WITHOUT_RULES, *(during for _, during in OUTAGES.values())]
    for name, panel, target in queries(dashboard):
        for value, colour in {table[name] for table in tables if name in table and table[name][1]}:
            words, got = shown(panel, target["legendFormat"], value)
            if COLOURS[got] != colour:
                yield f"“{name}” shows {words} in {COLOURS[got]}, not in {colour}"
            if value is NONE and not words.startswith("no data: "):
                yield f"“{name}” says “{words}” without data"


def asked_at(exprs, minute, table):
    """Each tile's own query at that minute, rounded: promtool compares to the last digit."""
    for name, (value, colour) in table.items():
        if colour:
            expr = f"round({exprs[name]}, 0.001)"
            if name.startswith("Alerts") and value:
                expr = f"clamp_max({expr}, 1)"
            yield {"expr": expr, "eval_time": f"{minute}m", "exp_samples": [] if value is NONE else [{"labels": "{}", "value": value}]}


def test(name, series, asked):
    return {"name": name, "interval": f"{STEP}s", "input_series": series, "promql_expr_test": list(asked)}


def recorded():
    dashboard = read()
    exprs = {name: filled_in(target["expr"]) for name, _, target in queries(dashboard)}
    wrong = list(wrong_colours(dashboard)) + [f"“{name}”: no outage is played to it" for name in exprs if name not in NEVER_SEEN]
    if missing := set(NEVER_SEEN) - set(exprs):
        return [f"there is no tile “{name}”" for name in sorted(missing)]
    began, ended = WELL * STEP // 60, (WELL + OUT) * STEP // 60
    tests = [
        test(
            name, series,
            [
                *asked_at(exprs, began - 1, HEALTHY),
                *asked_at(exprs, began + 3, {tile: during[tile] for tile in SOON if during[tile] == NOTHING_ENDS[tile]}),
                *asked_at(exprs, began + 10, during),
                *asked_at(exprs, ended + 50, HEALTHY),
            ],
        )
        for name, (series, during) in OUTAGES.items()
    ]
    tests.append(test("never seen", [], asked_at(exprs, 10, NEVER_SEEN)))
    without_rules = [test("without rules", scenario(gauge(0, 0)), asked_at(exprs, 10, WITHOUT_RULES))]
    for rules, those in (([str(ROOT / "deploy/prometheus/rules.yaml")], tests), ([], without_rules)):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            # JSON is YAML.
            json.dump({"rule_files": rules, "evaluation_interval": f"{STEP}s", "tests": those}, file)
            file.flush()
            ran = subprocess.run(["promtool", "test", "rules", file.name], capture_output=True, text=True)
        if ran.returncode:
            said = re.sub(r"\n\s*\n", "\n", (ran.stdout + ran.stderr).replace(file.name, "promtool"))
            for name, expr in exprs.items():
                said = said.replace(json.dumps(expr, ensure_ascii=False)[1:-1], f"“{name}”")
            wrong.append(said.strip())
    if not wrong:
        checks = sum(len(each["promql_expr_test"]) for each in tests + without_rules)
        print(f"{len(exprs)} numbers of the first row, {len(OUTAGES)} outages: {checks} values and their colours are as they must be")
    return wrong


def main():
    commands = {"show": show, "alerts": alerts, "recorded": recorded}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    wrong = commands[sys.argv[1]](*sys.argv[2:])
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
