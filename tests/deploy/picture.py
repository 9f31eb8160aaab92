#!/usr/bin/env python3
"""Draws deploy/grafana/dashboard.json from a Prometheus's data, for the README: there is not a Grafana
everywhere. Needs matplotlib.

picture.py --prometheus URL --since SECONDS FILE.png
"""

import argparse
import datetime
import json
import math
import pathlib
import re
import textwrap

import matplotlib

matplotlib.use("Agg")
import matplotlib.dates as dates
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

import dashboard as checks

BACKGROUND, PANEL, EDGE, TEXT, FAINT, GRID = "#111217", "#181B1F", "#2C3235", "#D8D9DA", "#8E9199", "#24282D"
PALETTE = ["#7EB26D", "#EAB839", "#6ED0E0", "#EF843C", "#E24D42", "#1F78C1", "#BA43A9", "#705DA0", "#508642", "#CCA300"]

# One cell of Grafana's grid, in inches, and the space between panels.
CELL_WIDTH, CELL_HEIGHT, GAP = 0.74, 0.36, 0.1
TOP, BOTTOM, SIDE = 0.75, 0.5, 0.2


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
        return f"{value * 100:.3g}%"
    if unit == "s":
        return f"{value * 1000:.0f} ms" if abs(value) < 1 and value else f"{value:.3g} s"
    if unit == "h":
        return f"{value:.3g} h" if value < 48 else f"{value / 24:.3g} days"
    if unit == "bytes":
        return "{:.3g} {}".format(*scaled(value, 1024, ["B", "KiB", "MiB", "GiB"]))
    if unit == "currencyVND":
        return "{:.3g}{} đ".format(*scaled(value, 1000, ["", "K", " Mil", " Bil"]))
    if unit.startswith("suffix:"):
        return f"{plain(value, decimals)} {unit.removeprefix('suffix:')}"
    return plain(value, decimals)


def named(template, labels):
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), template)


def series_of(panel, prometheus, seconds):
    """(legend, times, values) of each series, values that are no number as gaps."""
    for target in panel["targets"]:
        query = checks.filled_in(target["expr"], seconds)
        for each in checks.asked(prometheus, query, seconds):
            times = [datetime.datetime.fromtimestamp(float(at), datetime.timezone.utc) for at, _ in each["values"]]
            values = [float(value) if math.isfinite(float(value)) else math.nan for _, value in each["values"]]
            yield named(target["legendFormat"], each["metric"]), times, values


def colours_of(panel):
    fixed = {}
    for override in panel["fieldConfig"]["overrides"]:
        for each in override["properties"]:
            if each["id"] == "color":
                fixed[override["matcher"]["options"]] = each["value"]["fixedColor"]
    return fixed


def steps_of(panel, name):
    """The thresholds of a series: its own, or the panel's."""
    for override in panel["fieldConfig"]["overrides"]:
        for each in override["properties"]:
            if override["matcher"]["options"] == name and each["id"] == "thresholds":
                return each["value"]["steps"]
    return panel["fieldConfig"]["defaults"]["thresholds"]["steps"]


def colour_at(steps, value):
    return [step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]


def last(values):
    return next((value for value in reversed(values) if math.isfinite(value)), math.nan)


class Canvas:
    """The figure, and where on it a panel's grid position is."""

    def __init__(self, panels):
        cells = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
        self.width, self.height = 24 * CELL_WIDTH + 2 * SIDE, cells * CELL_HEIGHT + TOP + BOTTOM
        self.figure = plt.figure(figsize=(self.width, self.height), facecolor=BACKGROUND)

    def box(self, at):
        """Left, bottom, width and height in inches."""
        left, top = SIDE + at["x"] * CELL_WIDTH, TOP + at["y"] * CELL_HEIGHT
        width, height = at["w"] * CELL_WIDTH - GAP, at["h"] * CELL_HEIGHT - GAP
        return left, self.height - top - height, width, height

    def axes(self, left, bottom, width, height):
        place = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(place, facecolor="none")

    def text(self, left, bottom, text, **style):
        style = {"color": TEXT, "fontsize": 9, "va": "center", **style}
        return self.figure.text(left / self.width, bottom / self.height, text, **style)

    def frame(self, left, bottom, width, height):
        inches = self.figure.dpi_scale_trans
        style = "round,pad=0,rounding_size=0.04"
        patch = FancyBboxPatch((left, bottom), width, height, style, transform=inches, zorder=-1)
        patch.set(facecolor=PANEL, edgecolor=EDGE, linewidth=0.8)
        self.figure.patches.append(patch)


def draw_heading(canvas, panel):
    left, bottom, width, height = canvas.box(panel["gridPos"])
    canvas.text(left + 0.05, bottom + height / 2, f"▾  {panel['title']}", fontsize=11, fontweight="bold")


def draw_graph(canvas, panel, box, series, seconds):
    left, bottom, width, height = box
    unit, custom = panel["fieldConfig"]["defaults"]["unit"], panel["fieldConfig"]["defaults"]["custom"]
    axes = canvas.axes(left + 0.72, bottom + 0.62, width - 0.86, height - 1.0)
    fixed, palette = colours_of(panel), iter(PALETTE * 5)
    drawn = [(name, times, values, fixed.get(name) or next(palette)) for name, times, values in sorted(series)]
    plot(axes, drawn, custom)
    highest = top_of(axes, drawn, custom, panel["fieldConfig"]["defaults"].get("max"))
    if custom["thresholdsStyle"]["mode"] != "off":
        for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]:
            if step["value"] <= highest:
                axes.axhline(step["value"], color=step["color"], linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.8)
    style(axes, unit, seconds // 60)
    counts = panel["fieldConfig"]["defaults"].get("decimals") == 0
    nothing = not any(value for _, _, values, _ in drawn for value in values)
    axes.yaxis.set_major_locator(plt.MaxNLocator(1 if nothing else 4, integer=counts))
    draw_legend(canvas, left + 0.15, bottom + 0.17, width - 0.25, drawn, panel)


def plot(axes, drawn, custom):
    bars = custom["drawStyle"] == "bars"
    if custom["stacking"]["mode"] == "normal" and drawn:
        every = sorted({at for _, times, _, _ in drawn for at in times})
        rows = []
        for _, times, values, _ in drawn:
            known = dict(zip(times, values))
            rows.append([0 if math.isnan(known.get(at, 0)) else known.get(at, 0) for at in every])
        kind = "post" if custom["lineInterpolation"] == "stepAfter" else "mid" if bars else None
        axes.stackplot(every, rows, colors=[colour for *_, colour in drawn], alpha=0.75 if bars else 0.45, step=kind, linewidth=0)
        return
    for _, times, values, colour in drawn:
        drawstyle = "steps-post" if custom["lineInterpolation"] == "stepAfter" else "steps-mid" if bars else "default"
        axes.plot(times, values, color=colour, linewidth=1.2, drawstyle=drawstyle)
        kind = {"steps-post": "post", "steps-mid": "mid"}.get(drawstyle)
        axes.fill_between(times, values, color=colour, alpha=0.6 if bars else 0.1, step=kind, linewidth=0)


def top_of(axes, drawn, custom, given):
    """Sets the axis from nought to a little above what is drawn."""
    columns = {}
    for _, times, values, _ in drawn:
        for at, value in zip(times, values):
            if math.isfinite(value):
                stacked = custom["stacking"]["mode"] == "normal"
                columns[at] = columns.get(at, 0) + value if stacked else max(columns.get(at, 0), value)
    highest = given or max(columns.values(), default=0) * 1.12 or 1
    axes.set_ylim(0, highest)
    return highest


def style(axes, unit, minutes):
    # The words are in the legend, and there is little room here.
    short = "none" if unit.startswith("suffix:") else unit
    axes.yaxis.set_major_formatter(lambda value, _: formatted(value, short))
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))
    axes.xaxis.set_major_locator(dates.MinuteLocator(interval=max(1, minutes // 5)))
    axes.tick_params(colors=FAINT, labelsize=7, length=0)
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.margins(x=0)


def draw_legend(canvas, left, bottom, width, drawn, panel):
    """One line, shortened to what fits, the largest first."""
    at, defaults = left, panel["fieldConfig"]["defaults"]
    largest_first = sorted(drawn, key=lambda each: -last(each[2]) if math.isfinite(last(each[2])) else math.inf)
    for name, _, values, colour in largest_first:
        words = f"{name}: {formatted(last(values), defaults['unit'], defaults.get('decimals'))}" if math.isfinite(last(values)) else name
        needs = 0.34 + 0.057 * len(words)
        if at + needs > left + width:
            canvas.text(at, bottom, "…", color=FAINT, fontsize=7.5)
            return
        canvas.text(at, bottom, "■", color=colour, fontsize=10)
        canvas.text(at + 0.16, bottom, words, color=FAINT, fontsize=7.2)
        at += needs


def draw_number(canvas, panel, box, series, _):
    left, bottom, width, height = box
    unit = panel["fieldConfig"]["defaults"]["unit"]
    series = list(series) or [(panel["fieldConfig"]["defaults"]["noValue"], [], [])]
    share = width / len(series)
    for place, (name, times, values) in enumerate(series):
        value = last(values)
        colour = colour_at(steps_of(panel, name), value) if math.isfinite(value) else FAINT
        if any(math.isfinite(each) for each in values):
            spark = canvas.axes(left + place * share + 0.02, bottom + 0.02, share - 0.04, height * 0.38)
            spark.fill_between(times, values, color=colour, alpha=0.18, linewidth=0)
            spark.plot(times, values, color=colour, linewidth=0.9, alpha=0.8)
            spark.set_ylim(0, max((each for each in values if math.isfinite(each)), default=1) * 1.15 or 1)
            spark.margins(x=0)
            spark.axis("off")
        words = formatted(value, unit, panel["fieldConfig"]["defaults"].get("decimals")) if math.isfinite(value) else name
        middle = left + (place + 0.5) * share
        canvas.text(middle, bottom + height * 0.52, words, color=colour, fontsize=21, ha="center", fontweight="bold")
        if len(series) > 1:
            canvas.text(middle, bottom + height * 0.2, name, color=FAINT, fontsize=8, ha="center")


def draw_bars(canvas, panel, box, series, _):
    left, bottom, width, height = box
    unit, colour = panel["fieldConfig"]["defaults"]["unit"], panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["color"]
    ranked = sorted(((last(values), name) for name, _, values in series if math.isfinite(last(values))), reverse=True)[:10]
    axes = canvas.axes(left + 1.35, bottom + 0.2, width - 2.5, height - 0.62)
    axes.barh(range(len(ranked)), [value for value, _ in ranked], color=colour, height=0.55, alpha=0.85)
    axes.set_yticks(range(len(ranked)), [name for _, name in ranked], color=TEXT, fontsize=8)
    for place, (value, _) in enumerate(ranked):
        axes.annotate(f"  {formatted(value, unit, 0)}", (value, place), color=FAINT, fontsize=8, va="center")
    axes.set_ylim(max(len(ranked), 4) - 0.5, -0.5)
    axes.set_xticks([])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw(canvas, panel, prometheus, seconds):
    if panel["type"] == "row":
        draw_heading(canvas, panel)
        return
    box = canvas.box(panel["gridPos"])
    left, bottom, width, height = box
    canvas.frame(*box)
    canvas.text(left + 0.12, bottom + height - 0.17, panel["title"], fontsize=8.5)
    drawer = {"timeseries": draw_graph, "stat": draw_number, "bargauge": draw_bars}[panel["type"]]
    drawer(canvas, panel, box, list(series_of(panel, prometheus, seconds)), seconds)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("file", type=pathlib.Path)
    arguments.add_argument("--prometheus", metavar="URL", required=True)
    arguments.add_argument("--since", metavar="SECONDS", type=int, required=True)
    given = arguments.parse_args()

    made = json.loads((checks.GRAFANA / "dashboard.json").read_text(encoding="utf-8"))
    plt.rcParams["font.family"] = "DejaVu Sans"
    canvas = Canvas(made["panels"])
    canvas.text(SIDE + 0.05, canvas.height - 0.28, made["title"], fontsize=15, fontweight="bold")
    canvas.text(SIDE + 0.05, canvas.height - 0.55, made["description"], color=FAINT, fontsize=8.5)
    for panel in made["panels"]:
        draw(canvas, panel, given.prometheus, given.since)
    now = datetime.datetime.now(datetime.timezone.utc)
    words = (
        f"Drawn with matplotlib from a Prometheus's data, not by Grafana: the last {given.since} s of a run against the sandbox, "
        f"{now:%Y-%m-%d %H:%M} UTC. Legends show the last value."
    )
    canvas.text(SIDE + 0.05, 0.22, textwrap.shorten(words, 250), color=FAINT, fontsize=8)
    canvas.figure.savefig(given.file, dpi=100, facecolor=BACKGROUND)


if __name__ == "__main__":
    main()
