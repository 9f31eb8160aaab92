#!/usr/bin/env python3
"""Writes dashboard.json, beside this. By hand that is 3,000 lines in which no two panels stay alike.

dashboard.py           writes it
dashboard.py --check   says whether it is what this would write; exit code 1 if not
"""

import difflib
import json
import pathlib
import sys

FILE = pathlib.Path(__file__).with_name("dashboard.json")

# What the viewer chose. Recorded rules have no instance any more.
CHOSEN = 'namespace=~"$namespace",instance=~"$instance"'
RECORDED = '{namespace=~"$namespace"}'
BROKER = 'queue=~"otp[.].+",vhost="$vhost"'
# Every alert of prometheus/rules.yaml has this label. Some have no namespace, or RabbitMQ's.
ALERTS = 'service="esms-otp-worker"'
# Where people read it. Put yours in its place, as in prometheus/rules.yaml, and run this.
RUNBOOK = "https://git.example/esms-otp-worker/deploy/runbook.md"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

GREEN, YELLOW, ORANGE, RED, BLUE, PURPLE, GREY = "#73BF69", "#F2CC0C", "#FF9830", "#F2495C", "#5794F2", "#B877D9", "#8E8E8E"
OUTCOME_COLOURS = {"accepted": GREEN, "rejected": ORANGE, "failed": RED, "unknown": PURPLE, "expired": YELLOW, "limited": BLUE, "invalid": GREY}
CLASS_COLOURS = {"answered": GREEN, "not_sent": YELLOW, "ambiguous": PURPLE, "refused": RED}
QUANTILE_COLOURS = {"p50": GREEN, "p95": YELLOW, "p99": ORANGE}


def select(metric, more=""):
    return f"{metric}{{{CHOSEN}{',' if more else ''}{more}}}"


# Jobs that eSMS had a say in.
ENDED = select("otp_jobs_total", 'outcome!~"invalid|limited"')


def rate(metric, more=""):
    return f"rate({select(metric, more)}[$__rate_interval])"


def increase(metric, more=""):
    return f"increase({select(metric, more)}[$__rate_interval])"


def sum_by(label, expr):
    return f"sum by ({label}) ({expr})"


def by_worker(how, expr):
    """By pod where Prometheus knows it, as it does with a PodMonitor; else by address."""
    for label in ("instance", "pod"):
        expr = f'label_replace({expr}, "worker", "$1", "{label}", "(.+)")'
    return f"{how} by (worker) ({expr})"


def or_nought(expr, metric):
    """0 where there is nothing now and the metric was there within the hour. A metric that was never there stays `no data`."""
    return f"{expr} or 0 * count(max_over_time({metric}[1h]))"


def quantile(part, metric, more="", window="$__rate_interval"):
    return f"histogram_quantile({part}, sum by (le) (rate({select(metric + '_bucket', more)}[{window}])))"


def to_accepted(part, window="$__rate_interval"):
    """From the request to its acceptance: what it waited on the queue and what it took from there."""
    work = quantile(part, "otp_job_duration_seconds", 'outcome="accepted"', window)
    return quantile(part, "otp_job_queue_seconds", window=window) + " + " + work


def steps(*pairs):
    """Thresholds: a colour, and then from which value on which other."""
    first, *others = pairs
    return [{"color": first, "value": None}] + [{"color": colour, "value": value} for value, colour in others]


def targets(queries, instant=False):
    return [
        {
            "refId": chr(ord("A") + place),
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": expr,
            "legendFormat": legend,
            "range": not instant,
            "instant": instant,
        }
        for place, (legend, expr) in enumerate(queries)
    ]


def overridden(name, what, value):
    return {"matcher": {"id": "byName", "options": name}, "properties": [{"id": what, "value": value}]}


def coloured(colours):
    return [overridden(name, "color", {"mode": "fixed", "fixedColor": colour}) for name, colour in colours.items()]


def panel(kind, title, description, unit, queries, options, thresholds, overrides=(), instant=False, **defaults):
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "fieldConfig": {
            "defaults": {"unit": unit, "thresholds": {"mode": "absolute", "steps": thresholds}, **defaults},
            "overrides": list(overrides),
        },
        "options": options,
        "targets": targets(queries, instant),
    }


def graph(title, description, unit, queries, thresholds=None, colours=(), style="line", stacked=False, lowest=0, **defaults):
    """Values over time. Thresholds, where there are any, are drawn as lines. The axis begins at `lowest`, or below it where the values do."""
    bars = style == "bars"
    custom = {
        "drawStyle": style,
        "lineInterpolation": "stepAfter" if style == "steps" else "linear",
        "lineWidth": 1,
        "fillOpacity": 80 if bars else 25 if stacked else 10,
        "showPoints": "never",
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if thresholds else "off"},
        "axisSoftMin": lowest,
    }
    if style == "steps":
        custom["drawStyle"] = "line"
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    if not lowest:
        defaults["min"] = 0
    defaults = {"color": {"mode": "palette-classic"}, "custom": custom, **defaults}
    overrides = coloured(dict(colours))
    return panel("timeseries", title, description, unit, queries, options, thresholds or steps(GREEN), overrides, **defaults)


def number(title, description, unit, queries, thresholds, nothing, colour=GREY, overrides=(), **defaults):
    """One number of this moment, large. `nothing` is what it says without data, and the colour of that: Grafana's own is the lowest
    threshold's, so often green."""
    options = {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "textMode": "value_and_name" if len(queries) > 1 else "value",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    nothing = f"no data: {nothing}"
    mapping = {"type": "special", "options": {"match": "null+nan", "result": {"text": nothing, "color": colour}}}
    return panel(
        "stat", title, description, unit, queries, options, thresholds, overrides, instant=True,
        color={"mode": "thresholds"}, noValue=nothing, mappings=[mapping], **defaults,
    )


def table(title, description, columns, expr, unit, **override):
    """Series as lines: the labels that are named, and the value as the last column."""
    *labels, value = columns.values()
    made = panel(
        "table", title, description, unit, [(value, expr)], {"showHeader": True, "cellHeight": "sm"}, steps(GREEN),
        [{"matcher": {"id": "byName", "options": name}, "properties": properties} for name, properties in override.items()],
        instant=True, noValue="none",
    )
    made["targets"][0]["format"] = "table"
    order = {name: place for place, name in enumerate(columns)}
    made["transformations"] = [
        {"id": "sortBy", "options": {"sort": [{"field": labels[-1]}]}},
        {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": columns, "indexByName": order}},
    ]
    return made


def bars(title, description, unit, queries, thresholds):
    """One bar for each series, for the whole of the time shown."""
    options = {
        "orientation": "horizontal",
        "displayMode": "basic",
        "valueMode": "color",
        "showUnfilled": True,
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    return panel(
        "bargauge", title, description, unit, queries, options, thresholds, instant=True, min=0, decimals=0,
        color={"mode": "thresholds"}, noValue="none",
    )


def firing(severity):
    """0 only where the rules are evaluated: they record the workers, or another alert is there."""
    fire = f'count(ALERTS{{{ALERTS},alertstate="firing",severity="{severity}"}})'
    return or_nought(fire, "otp:workers:count") + f" or 0 * count(ALERTS{{{ALERTS}}})"


def accepted_of(window):
    accepted = select("otp_jobs_total", 'outcome="accepted"')
    return f"sum(increase({accepted}[{window}])) / (sum(increase({ENDED}[{window}])) > 0)"


def fresh(expr, metric):
    """Not longer than two minutes after the last: what the five minutes before were like says nothing of an outage."""
    return f"{expr} and on () sum(increase({metric}[2m])) > 0"


def people():
    accepted = select("otp_jobs_total", 'outcome="accepted"')
    new_by_prefix = sum_by("prefix", rate("otp_numbers_total", 'seen="new"'))
    limited, understood = select("otp_jobs_total", 'outcome="limited"'), select("otp_jobs_total", 'outcome!="invalid"')
    yield 6, 3, number(
        "Acceptance rate",
        "Of the jobs that ended in the last five minutes, those that eSMS accepted; jobs that cannot be understood, and those that a limit held back, are left out. "
        "`accepted` is eSMS's word for having taken the request, not proof that a phone rang. Two minutes after the last job there is no rate any more.",
        "percentunit",
        [("accepted", fresh(accepted_of("5m"), ENDED))],
        steps(RED, (0.8, YELLOW), (0.95, GREEN)),
        "nothing ended",
        max=1,
    )
    yield 6, 3, number(
        "Accepted a minute",
        "Jobs that eSMS accepted, a minute, over two minutes. 0: nobody gets a code, or nobody asks for one.",
        "suffix:a minute",
        [("accepted", or_nought(f"60 * sum(rate({accepted}[2m]))", select("otp_build_info")))],
        steps(ORANGE, (0.001, GREEN)),
        "no worker seen",
        RED,
    )
    yield 6, 3, number(
        "Request to accepted, p95",
        "How long nearly everybody waits: the 95th percentile of the time on the queue plus that of the work, over five minutes. "
        "Producers write whole seconds, so that up to one second of it may be rounding. Two minutes after the last job was accepted there is no number any more.",
        "s",
        [("p95", fresh(to_accepted(0.95, "5m"), accepted))],
        steps(GREEN, (5, YELLOW), (10, RED)),
        "nothing accepted",
        decimals=1,
    )
    yield 6, 3, number(
        "Alerts",
        "Alerts of this worker that fire now, in every namespace. Their names are below.",
        "none",
        [("pages", firing("page")), ("tickets", firing("ticket"))],
        steps(GREEN, (1, RED)),
        "rules not seen",
        ORANGE,
        overrides=[overridden("tickets", "thresholds", {"mode": "absolute", "steps": steps(GREEN, (1, YELLOW))})],
        decimals=0,
    )
    yield 6, 3, number(
        "Jobs waiting",
        "Jobs on otp.jobs that no worker has taken. A worker takes up to OTP_PREFETCH (512), so that they are few while all is well. From RabbitMQ's own plugin.",
        "suffix:jobs",
        [("waiting", 'max(otp:queue_messages_ready:max{queue="otp.jobs",vhost="$vhost"})')],
        steps(GREEN, (10, YELLOW), (500, RED)),
        "broker not seen",
        ORANGE,
        decimals=0,
    )
    yield 6, 3, number(
        "Workers connected",
        "Workers that consume and can publish. 0: all are cut off from the broker, or gone within the last hour. Without a worker that Prometheus saw in the last hour there is no number.",
        "suffix:workers",
        [("connected", or_nought(f"sum({select('otp_broker_connected')})", select("otp_broker_connected")))],
        steps(RED, (1, GREEN)),
        "no worker seen",
        RED,
        decimals=0,
    )
    yield 6, 3, number(
        "Held back by limits",
        "Of the jobs of the last five minutes, those that a limit held back. A few are people who press “resend”. Most of a prefix's: "
        "somebody has codes sent to a list of numbers (SMS pumping); OtpPumping pages at half of a prefix.",
        "percentunit",
        [("held back", fresh(f"sum(increase({limited}[5m])) / (sum(increase({understood}[5m])) > 0)", understood))],
        steps(GREEN, (0.2, YELLOW), (0.4, RED)),
        "nothing ended",
        max=1,
    )
    yield 6, 3, number(
        "SLO: allowance left",
        "Of the one job in a hundred that may be bad in 30 days (neither accepted nor properly refused within 10 s), how much is "
        "left. Below nothing the objective is missed. It is about the month: an outage shows in it only as jobs end badly.",
        "percentunit",
        [("left", f"min(otp:slo_budget_left:ratio30d{RECORDED})")],
        steps(RED, (0, ORANGE), (0.25, GREEN)),
        "not recorded yet",
        max=1,
        decimals=0,
    )
    since = f'ALERTS_FOR_STATE{{{ALERTS}}} and ignoring (alertstate) ALERTS{{{ALERTS},alertstate="firing"}}'
    yield 8, 8, table(
        "Alerts that fire",
        "By name, with since when the condition has held. A name leads to its section in the runbook.",
        {"alertname": "alert", "severity": "severity", "Value": "since"},
        f"1000 * min by (alertname, severity) ({since})",
        "dateTimeFromNow",
        alertname=[{"id": "links", "value": [{"title": "Runbook", "url": "${runbook}#${__value.text}", "targetBlank": True}]}],
    )
    yield 8, 8, graph(
        "Outcomes",
        "Jobs that ended, by outcome. Only `accepted` brings somebody a code; `unknown` may have.",
        "suffix:jobs/s",
        [("{{outcome}}", sum_by("outcome", rate("otp_jobs_total")))],
        colours=OUTCOME_COLOURS,
        stacked=True,
    )
    yield 8, 8, graph(
        "Acceptance rate, and what is usual",
        "Accepted of all that ended, now and over the last ten minutes, beside what is usual by the day before. OtpAcceptanceFalling "
        "pages more than a tenth below that, if it is more than chance.",
        "percentunit",
        [
            ("now", accepted_of("$__rate_interval")),
            ("ten minutes", f"min(otp:jobs_accepted:ratio10m{RECORDED})"),
            ("usual", f"min(otp:jobs_accepted:usual{RECORDED})"),
        ],
        colours={"now": GREEN, "ten minutes": BLUE, "usual": GREY},
        lowest=0.8,
        max=1,
    )
    yield 8, 8, graph(
        "Request to accepted",
        "From when the producer made a job until it was accepted and acknowledged: percentiles of the time on the queue and of the "
        "work, added. `on the queue` is the queue's part of p95; a producer that names whole seconds only makes it up to a second too low.",
        "s",
        [
            ("p50", to_accepted(0.5)),
            ("p95", to_accepted(0.95)),
            ("on the queue", quantile(0.95, "otp_job_queue_seconds")),
        ],
        steps(GREEN, (10, RED)),
        colours={"p50": GREEN, "p95": YELLOW, "on the queue": GREY},
    )
    yield 8, 8, graph(
        "Jobs that brought no code",
        "Jobs that ended otherwise than accepted, each interval. `rejected`: eSMS refused. `failed`: eSMS was not reached. "
        "`unknown`: perhaps sent. `expired`: too late. `limited`: a limit of ours. `invalid`: the producer's mistake.",
        "suffix:jobs",
        [("{{outcome}}", sum_by("outcome", increase("otp_jobs_total", 'outcome!="accepted"')))],
        colours={name: colour for name, colour in OUTCOME_COLOURS.items() if name != "accepted"},
        style="bars",
        stacked=True,
    )
    yield 8, 8, graph(
        "SLO burn rate",
        "How many times faster than allowed bad jobs come. At 1 the month's allowance lasts the month; OtpSloBurnFast pages at 14.4 "
        "over an hour, or at 6 over six.",
        "suffix:×",
        [(name, f"max(otp:slo_bad:ratio{window}{RECORDED}) / 0.01") for name, window in [("5 min", "5m"), ("1 h", "1h"), ("6 h", "6h")]],
        steps(GREEN, (1, YELLOW), (14.4, RED)),
        colours={"5 min": GREY, "1 h": BLUE, "6 h": PURPLE},
    )


    yield 6, 8, graph(
        "Held back, by limit",
        "Jobs that a limit held back. `cooldown`, `phone`: one number too often. `prefix`: more than OTP_PREFIX_LIMIT allows to numbers "
        "that begin so. `prefix_denied`: not served. `total`: nobody gets a code.",
        "suffix:jobs/s",
        [("{{limit}}", sum_by("limit", rate("otp_limited_total")))],
        colours={"cooldown": GREEN, "phone": YELLOW, "prefix": RED, "prefix_denied": ORANGE, "total": PURPLE},
        stacked=True,
    )
    yield 6, 8, graph(
        "Held back, by prefix",
        "The ten prefixes of which most is held back, whatever the limit. One prefix alone: somebody has codes sent to a list of numbers.",
        "suffix:jobs/s",
        [("prefix {{prefix}}", f"topk(10, {sum_by('prefix', rate('otp_limited_total'))})")],
        stacked=True,
    )
    yield 6, 8, graph(
        "New numbers, by prefix",
        "OTPs to numbers that had none within the longest window of the limits, by the longest prefix that is configured. One prefix that "
        "grows alone, without repeats, is a list of numbers: an attack or a campaign.",
        "suffix:numbers/s",
        [("prefix {{prefix}}", f"topk(10, {new_by_prefix})")],
        stacked=True,
    )
    yield 6, 8, graph(
        "OTPs under limits, in a day",
        "OTPs that were counted in the 24 hours before: what OTP_TOTAL_LIMIT is to be compared with. `known`: to numbers that had one "
        "before; OtpNewNumbers pages when these are less than a third of what is usual in a prefix.",
        "suffix:OTPs",
        [("{{seen}}", f"sum by (seen) (increase({select('otp_numbers_total')}[1d]))")],
        colours={"new": BLUE, "known": GREEN},
        stacked=True,
    )


def esms():
    yield 8, 8, graph(
        "Time of a call",
        "Calls of eSMS that were answered, whatever the answer. ESMS_TIMEOUT (10 s by default) ends a call.",
        "s",
        [(f"p{int(part * 100)}", quantile(part, "otp_attempt_duration_seconds", 'class="answered"')) for part in (0.5, 0.95, 0.99)],
        colours=QUANTILE_COLOURS,
    )
    yield 8, 8, graph(
        "Calls by class",
        "Calls of eSMS by what they ended in. `ambiguous`: the code may have gone out, and another try may send a second. "
        "`not_sent`: it surely did not. `refused`: HTTP 3xx or 4xx.",
        "suffix:calls/s",
        [("{{class}}", sum_by("class", rate("otp_attempts_total")))],
        colours=CLASS_COLOURS,
        stacked=True,
    )
    yield 8, 8, graph(
        "Refusals by scope",
        "CodeResults other than 100, by whom they concern. `account` hits every job until a person acts, and pages at the first; "
        "`throttle` is tried again.",
        "suffix:answers",
        [("{{scope}}", sum_by("scope", increase("otp_code_results_total", 'code!="100"')))],
        colours={
            "account": RED, "template": ORANGE, "request": YELLOW, "recipient": BLUE, "throttle": PURPLE, "unknown": GREY,
        },
        style="bars",
        stacked=True,
    )
    codes = select("otp_code_results_total", 'code!="100"')
    yield 8, 6, bars(
        "CodeResults",
        "The ten commonest CodeResults other than 100 in the time shown. What each means is in src/send/codes.rs.",
        "suffix:answers",
        [("{{code}} ({{scope}})", f"topk(10, sum by (code, scope) (increase({codes}[$__range])) > 0)")],
        steps(BLUE),
    )
    yield 4, 6, graph(
        "Circuit",
        "Workers whose circuit is open: eSMS does not answer them, and they hold calls back.",
        "suffix:workers",
        [("open", f"sum({select('otp_circuit_open')})")],
        steps(GREEN, (1, RED)),
        colours={"open": RED},
        style="steps",
        decimals=0,
    )
    yield 4, 6, graph(
        "Waiting for the rate limit",
        "Jobs that wait, on the mean, because of OTP_RATE_LIMIT, OTP_SHARED_RATE_LIMIT, or because eSMS throttles.",
        "suffix:jobs",
        [("waiting", f"sum({rate('otp_rate_limited_seconds_total')})")],
        colours={"waiting": PURPLE},
    )
    yield 8, 6, graph(
        "Rate found, while eSMS throttles",
        "Calls a second that each worker allows itself since eSMS has throttled it: after a pause half as many as before, then more each "
        "second until the limit is lifted. 0 while nothing is throttled.",
        "suffix:calls/s",
        [("{{worker}}", by_worker("sum", select("otp_rate_found")))],
    )
    yield 12, 4, number(
        "Balance",
        "What is on the account at eSMS, if ESMS_BALANCE_INTERVAL has the worker ask. At nothing eSMS refuses every job with 103.",
        "currencyVND",
        [("balance", f"min({select('esms_balance_vnd')})")],
        steps(RED, (1, GREEN)),
        "not asked for",
    )
    yield 12, 4, number(
        "Balance lasts for",
        "At the pace of the last day or of the last hour, whichever is faster. OtpBalanceLow is a ticket below a day, "
        "OtpBalanceRunningOut pages below four hours.",
        "h",
        [("left", f"min(otp:balance_left:hours{RECORDED})")],
        steps(RED, (4, YELLOW), (24, GREEN)),
        "nothing spent",
    )


def queue():
    yield 8, 8, graph(
        "Time on the queue",
        "How old jobs are when a worker gets them; at least so old, where producers name whole seconds only. After OTP_JOB_TTL (five minutes by default) a job is not sent any more; "
        "OtpQueueTimeNearTtl pages when one in twenty has waited for two.",
        "s",
        [(f"p{int(part * 100)}", quantile(part, "otp_job_queue_seconds")) for part in (0.5, 0.95, 0.99)],
        steps(GREEN, (120, RED)),
        colours=QUANTILE_COLOURS,
    )
    yield 8, 8, graph(
        "In flight",
        "Jobs that the workers have in hand, and those of them that wait for their next attempt. With OTP_PREFETCH in flight a "
        "worker takes no more.",
        "suffix:jobs",
        [
            ("in flight", f"sum({select('otp_jobs_in_flight')})"),
            ("waiting for another attempt", f"sum({select('otp_jobs_waiting_retry')})"),
        ],
        colours={"in flight": BLUE, "waiting for another attempt": ORANGE},
    )
    yield 8, 8, graph(
        "Messages ready",
        "Messages that wait on the broker, by queue. otp.jobs: work. otp.dead: for a person. otp.results.unrouted: results nobody has "
        "bound a queue for. From RabbitMQ's own plugin.",
        "suffix:messages",
        [("{{queue}}", f"max by (queue) (otp:queue_messages_ready:max{{{BROKER}}})")],
        colours={"otp.jobs": BLUE, "otp.dead": RED, "otp.dropped": ORANGE, "otp.results.unrouted": YELLOW},
    )
    yield 6, 7, graph(
        "Redeliveries",
        "Jobs that came more than once, by what the worker knew of them. `new`: nothing, so its result says MayBeDuplicate. `done` and "
        "`in_flight` get the result that there is, and are not sent again.",
        "suffix:jobs",
        [("{{found}}", sum_by("found", increase("otp_redeliveries_total")))],
        colours={"new": ORANGE, "in_flight": BLUE, "done": GREEN},
        style="bars",
        stacked=True,
    )
    yield 6, 7, graph(
        "MayBeDuplicate",
        "Results which say that the person may have got one code more: of all, over 15 minutes. OtpMayBeDuplicateShare is a ticket "
        "above 5%.",
        "percentunit",
        [("of the results", f"max(otp:may_be_duplicate:ratio15m{RECORDED})")],
        steps(GREEN, (0.05, RED)),
        colours={"of the results": PURPLE},
    )
    yield 6, 7, graph(
        "Dead letters",
        "Jobs put on otp.dead each interval: they cannot be understood, or were delivered too often. A person must look at them.",
        "suffix:jobs",
        [("dead letters", f"sum({increase('otp_dead_lettered_total')})")],
        colours={"dead letters": RED},
        style="bars",
    )
    yield 6, 7, graph(
        "Results not routed",
        "`returned`: no queue took a result, or the producer's reply queue is gone. `failed`: not confirmed, and tried again.",
        "suffix:results",
        [("{{status}}", sum_by("status", increase("otp_results_published_total", 'status!="confirmed"')))],
        colours={"returned": ORANGE, "failed": RED},
        style="bars",
        stacked=True,
    )


def workers():
    yield 6, 7, graph(
        "Workers",
        "Workers that Prometheus sees, by version and revision.",
        "suffix:workers",
        [("{{version}} {{revision}}", f"count by (version, revision) ({select('otp_build_info')})")],
        style="steps",
        stacked=True,
        decimals=0,
    )
    yield 6, 7, graph(
        "Connected to the broker",
        "1: this worker is consuming and able to publish, which is what /readyz says too.",
        "none",
        [("{{worker}}", by_worker("max", select("otp_broker_connected")))],
        style="steps",
        decimals=0,
        max=1,
    )
    yield 6, 7, graph(
        "Restarts and reconnects",
        "`restarts`: workers that started anew under the same address; a pod that is replaced gets another. `reconnects`: connections "
        "made to the broker by workers that ran already; each has three.",
        "suffix:times",
        [
            ("restarts", f"sum(changes({select('process_start_time_seconds')}[$__rate_interval]))"),
            ("reconnects", f"sum({increase('otp_broker_connections_total')})"),
        ],
        colours={"restarts": RED, "reconnects": ORANGE},
        style="bars",
        decimals=0,
    )
    yield 6, 7, graph(
        "Ledger errors",
        "Calls of the ledger that failed, each interval. While they do, a repeat of a job may be sent twice, or jobs wait "
        "(OTP_LEDGER_ON_ERROR).",
        "suffix:errors",
        [("errors", f"sum({increase('otp_ledger_errors_total')})")],
        colours={"errors": RED},
        style="bars",
    )
    yield 8, 7, graph(
        "CPU",
        "Of one core, by worker, over five minutes: the worker counts whole seconds.",
        "percentunit",
        [("{{worker}}", by_worker("sum", f"rate({select('process_cpu_seconds_total')}[5m])"))],
    )
    yield 8, 7, graph(
        "Memory",
        "Resident memory by worker.",
        "bytes",
        [("{{worker}}", by_worker("sum", select("process_resident_memory_bytes")))],
    )
    yield 8, 7, graph(
        "Open files",
        "Open file descriptors, which are mostly connections, of those allowed, by worker.",
        "percentunit",
        [("{{worker}}", by_worker("max", f"{select('process_open_fds')} / {select('process_max_fds')}"))],
        steps(GREEN, (0.8, RED)),
    )


ROWS = [
    ("Are people getting their codes?", people),
    ("eSMS", esms),
    ("Queue", queue),
    ("Workers", workers),
]


def laid_out():
    """The panels from left to right and top to bottom, each row below its heading."""
    top, number_of = 0, 0
    for title, contents in ROWS:
        number_of += 1
        yield {
            "type": "row", "id": number_of, "title": title, "collapsed": False, "panels": [],
            "gridPos": {"x": 0, "y": top, "w": 24, "h": 1},
        }
        top, left, tallest = top + 1, 0, 0
        for width, height, made in contents():
            if left + width > 24:
                top, left, tallest = top + tallest, 0, 0
            number_of += 1
            yield {"id": number_of, **made, "gridPos": {"x": left, "y": top, "w": width, "h": height}}
            left, tallest = left + width, max(tallest, height)
        top += tallest


def choice(name, label, values, **more):
    """A variable; `All` is also what has no such label."""
    return {
        "type": "query", "name": name, "label": label, "datasource": DATASOURCE,
        "query": {"query": values, "refId": name}, "refresh": 2, "sort": 1,
        "multi": True, "includeAll": True, "allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]}, **more,
    }


def variables():
    yield {
        "type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus", "refresh": 1,
        "includeAll": False, "multi": False,
    }
    yield choice("namespace", "Namespace", "label_values(otp_build_info, namespace)")
    # The name of the pod is shown, and the address is what is asked by: every metric has that.
    named = by_worker("count", 'otp_build_info{namespace=~"$namespace"}').replace("by (worker)", "by (instance, worker)")
    pairs = '/instance="(?<value>[^"]+)".*worker="(?<text>[^"]+)"/'
    yield choice("instance", "Worker", f"query_result({named})", regex=pairs)
    # Queues of two virtual hosts have the same names: never the sum of both.
    yield choice(
        "vhost", "Virtual host", "label_values(otp:queue_messages_ready:max, vhost)",
        multi=False, includeAll=False, allValue=None, current={},
    )
    yield {"type": "constant", "name": "runbook", "label": "Runbook", "query": RUNBOOK, "hide": 2}


def annotations():
    """What happened, as lines and areas over every graph."""
    def shown(name, expr, title, colour, **more):
        return {
            "name": name, "enable": True, "datasource": DATASOURCE, "iconColor": colour, "expr": expr, "step": "15s",
            "titleFormat": title, **more,
        }

    # A process's own word for when it began: also of a pod that took another's place, of which no counter knows.
    started = by_worker("max", select("process_start_time_seconds"))
    yield shown("Restarts", f"1000 * {started}", "{{worker}} started", PURPLE, useValueForTime="on")
    yield shown("Circuit open", f"{by_worker('max', select('otp_circuit_open'))} > 0", "{{worker}}: circuit open", RED)


def dashboard():
    return {
        "uid": "esms-otp-worker",
        "title": "OTP worker (eSMS)",
        "description": "Are people getting their codes, and if not, why? What to do about an alert is in the runbook.",
        "tags": ["otp", "esms"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "templating": {"list": list(variables())},
        "annotations": {"list": list(annotations())},
        "links": [{"type": "link", "title": "Runbook", "url": "$runbook", "icon": "doc", "targetBlank": True}],
        "panels": list(laid_out()),
    }


def main():
    text = json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"
    if sys.argv[1:] == ["--check"]:
        kept = FILE.read_text(encoding="utf-8")
        lines = difflib.unified_diff(kept.splitlines(), text.splitlines(), FILE.name, "what dashboard.py writes", lineterm="", n=1)
        difference = "\n".join(lines)
        sys.exit(f"{FILE.name} is not what dashboard.py writes; run it:\n{difference}" if difference else 0)
    if sys.argv[1:]:
        sys.exit(__doc__)
    FILE.write_text(text, encoding="utf-8")


main()
