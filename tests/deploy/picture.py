#!/usr/bin/env python3
"""Draws the first two rows of panels of deploy/grafana/dashboard.json from a Prometheus's data, for the README: there is not a
Grafana everywhere. Needs matplotlib.

picture.py --prometheus URL --since SECONDS FILE.png
"""

import argparse
import datetime
import math
import pathlib
import re
import time

import matplotlib

matplotlib.use("Agg")
import matplotlib.dates as dates
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

import dashboard as checks
import tiles
from tiles import colour_at, formatted, steps_of

BACKGROUND, PANEL, EDGE, TEXT, FAINT, GRID = "#111217", "#181B1F", "#2C3235", "#D8D9DA", "#8E9199", "#24282D"
PALETTE = ["#7EB26D", "#EAB839", "#6ED0E0", "#EF843C", "#E24D42", "#1F78C1", "#BA43A9", "#705DA0", "#508642", "#CCA300"]

# One cell of Grafana's grid, in inches, and the space between panels. The README is about 8.6 inches wide, and has twice the pixels.
CELL_WIDTH, CELL_HEIGHT, GAP = 0.352, 0.3, 0.07
TOP, BOTTOM, SIDE, DOTS = 0.5, 0.3, 0.08, 190


def named(template, labels):
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), template)


def series_of(panel, prometheus, seconds):
    """(legend, times, values) of each series, values that are no number as gaps."""
    for target in panel["targets"]:
        query = tiles.filled_in(target["expr"], seconds)
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


def last(values):
    return next((value for value in reversed(values) if math.isfinite(value)), math.nan)


class Canvas:
    """The figure, and where on it a panel's grid position is."""

    def __init__(self, panels):
        self.first = min(panel["gridPos"]["y"] for panel in panels)
        cells = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) - self.first
        self.width, self.height = 24 * CELL_WIDTH + 2 * SIDE, cells * CELL_HEIGHT + TOP + BOTTOM
        self.figure = plt.figure(figsize=(self.width, self.height), facecolor=BACKGROUND)

    def box(self, at):
        """Left, bottom, width and height in inches."""
        left, top = SIDE + at["x"] * CELL_WIDTH, TOP + (at["y"] - self.first) * CELL_HEIGHT
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


def draw_graph(canvas, panel, box, series, seconds, annotations):
    left, bottom, width, height = box
    unit, custom = panel["fieldConfig"]["defaults"]["unit"], panel["fieldConfig"]["defaults"]["custom"]
    axes = canvas.axes(left + 0.5, bottom + 0.72, width - 0.62, height - 1.05)
    fixed, palette = colours_of(panel), iter(PALETTE * 5)
    drawn = [(name, times, values, fixed.get(name) or next(palette)) for name, times, values in sorted(series)]
    plot(axes, drawn, custom)
    highest = top_of(axes, drawn, custom, panel["fieldConfig"]["defaults"].get("max"))
    if custom["thresholdsStyle"]["mode"] != "off":
        for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]:
            if step["value"] <= highest:
                axes.axhline(step["value"], color=step["color"], linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.8)
    for at, colour in annotations:
        axes.axvline(at, color=colour, linewidth=0.8, linestyle=(0, (2, 2)))
    style(axes, unit, seconds // 60)
    counts = panel["fieldConfig"]["defaults"].get("decimals") == 0
    nothing = not any(value for _, _, values, _ in drawn for value in values)
    axes.yaxis.set_major_locator(plt.MaxNLocator(1 if nothing else 4, integer=counts))
    draw_legend(canvas, left + 0.1, bottom + 0.4, width - 0.2, drawn, panel)


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
    """Sets the axis from its soft lowest, or lower, to a little above what is drawn."""
    columns, lowest = {}, custom["axisSoftMin"]
    for _, times, values, _ in drawn:
        lowest = min([lowest, *(value for value in values if math.isfinite(value))])
        for at, value in zip(times, values):
            if math.isfinite(value):
                stacked = custom["stacking"]["mode"] == "normal"
                columns[at] = columns.get(at, 0) + value if stacked else max(columns.get(at, 0), value)
    highest = given or max(columns.values(), default=0) * 1.12 or 1
    axes.set_ylim(lowest, highest)
    return highest


def style(axes, unit, minutes):
    # The words are in the legend, and there is little room here.
    short = "none" if unit.startswith("suffix:") else unit
    axes.yaxis.set_major_formatter(lambda value, _: formatted(value, short))
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))
    axes.xaxis.set_major_locator(dates.MinuteLocator(interval=max(1, minutes // 3)))
    axes.tick_params(colors=FAINT, labelsize=7, length=0)
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.margins(x=0)


def draw_legend(canvas, left, bottom, width, drawn, panel):
    """Two lines, shortened to what fits, the largest first."""
    at, line, defaults = left, bottom, panel["fieldConfig"]["defaults"]
    largest_first = sorted(drawn, key=lambda each: -last(each[2]) if math.isfinite(last(each[2])) else math.inf)
    for name, _, values, colour in largest_first:
        words = f"{name}: {formatted(last(values), defaults['unit'], defaults.get('decimals'))}" if math.isfinite(last(values)) else name
        needs = 0.25 + 0.066 * len(words)
        if at + needs > left + width:
            if line < bottom:
                canvas.text(at, line, "…", color=FAINT)
                return
            at, line = left, bottom - 0.22
        canvas.text(at, line, "■", color=colour, fontsize=8)
        canvas.text(at + 0.13, line, words, color=FAINT, fontsize=7.5)
        at += needs


def draw_number(canvas, panel, box, prometheus):
    left, bottom, width, height = box
    share = width / len(panel["targets"])
    for place, target in enumerate(panel["targets"]):
        name = target["legendFormat"]
        words, colour = tiles.shown(panel, name, tiles.now(prometheus, target["expr"]))
        middle = left + (place + 0.5) * share
        size = 17 if len(words) < 14 else 11
        canvas.text(middle, bottom + height * 0.36, words, color=colour, fontsize=size, ha="center", fontweight="bold")
        if len(panel["targets"]) > 1:
            canvas.text(middle, bottom + 0.09, name, color=FAINT, fontsize=7.5, ha="center")


def draw_table(canvas, panel, box, prometheus):
    left, bottom, width, height = box
    titles = next(each["options"]["renameByName"] for each in panel["transformations"] if each["id"] == "organize")
    places = [left + 0.1, left + 0.57 * width, left + width - 0.1]
    lines = [(titles.values(), FAINT)]
    for each in tiles.answer(prometheus, "query", query=tiles.filled_in(panel["targets"][0]["expr"])):
        value = formatted(float(each["value"][1]), panel["fieldConfig"]["defaults"]["unit"])
        lines.append(([*(each["metric"][label] for label in titles if label != "Value"), value], TEXT))
    if len(lines) == 1:
        lines.append((["none"], TEXT))
    for line, (cells, colour) in enumerate(lines[:8]):
        for cell, (place, align) in zip(cells, zip(places, ("left", "left", "right"))):
            canvas.text(place, bottom + height - 0.48 - 0.25 * line, cell, color=colour, fontsize=7.8, ha=align)


def annotated(made, prometheus, seconds):
    """When something happened that the dashboard marks, and in which colour."""
    for each in made["annotations"]["list"]:
        begin = time.time() - seconds
        for series in checks.asked(prometheus, tiles.filled_in(each["expr"]), seconds):
            exact = each.get("useValueForTime") == "on"
            times = {float(value) / 1000 for _, value in series["values"]} if exact else {float(series["values"][0][0])}
            yield from ((datetime.datetime.fromtimestamp(at, datetime.timezone.utc), each["iconColor"]) for at in times if at > begin)


def draw(canvas, panel, prometheus, seconds, annotations):
    box = canvas.box(panel["gridPos"])
    left, bottom, width, height = box
    canvas.frame(*box)
    canvas.text(left + 0.1, bottom + height - 0.15, panel["title"], fontsize=8.5)
    if panel["type"] == "timeseries":
        draw_graph(canvas, panel, box, list(series_of(panel, prometheus, seconds)), seconds, annotations)
    else:
        {"stat": draw_number, "table": draw_table}[panel["type"]](canvas, panel, box, prometheus)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("file", type=pathlib.Path)
    arguments.add_argument("--prometheus", metavar="URL", required=True)
    arguments.add_argument("--since", metavar="SECONDS", type=int, required=True)
    given = arguments.parse_args()

    made = tiles.read()
    plt.rcParams["font.family"] = "DejaVu Sans"
    first_graphs = min(panel["gridPos"]["y"] for panel in made["panels"] if panel["type"] == "timeseries")
    panels = [panel for panel in made["panels"] if panel["type"] != "row" and panel["gridPos"]["y"] <= first_graphs]
    canvas = Canvas(panels)
    canvas.text(SIDE + 0.05, canvas.height - 0.2, made["title"], fontsize=12, fontweight="bold")
    annotations = list(annotated(made, given.prometheus, given.since))
    for panel in panels:
        draw(canvas, panel, given.prometheus, given.since, annotations)
    now = datetime.datetime.now(datetime.timezone.utc)
    words = f"Drawn with matplotlib from a Prometheus's data, not by Grafana: {given.since} s of a run against the sandbox, {now:%Y-%m-%d %H:%M} UTC."
    canvas.text(SIDE + 0.05, 0.14, words, color=FAINT, fontsize=7)
    canvas.figure.savefig(given.file, dpi=DOTS, facecolor=BACKGROUND)


if __name__ == "__main__":
    main()
