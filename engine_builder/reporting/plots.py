"""The plots of whole engines: the front of all trials, the path of the search, and what was predicted against what was measured.

Each returns an ``<svg>`` element, or nothing where the report holds nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from engine_builder.reporting.drawing import (
    BAD,
    CHOSEN,
    FAINT,
    GOOD,
    HALF,
    INK,
    WIDE,
    colour_of,
    dress,
    label_of,
    number,
    plain_powers,
    room_for,
    svg_of,
)

Row = Mapping[str, object]

LOWER_IS_BETTER = ("nmse",)
OFF_SCALE = 6.0  # times the budget: engines that lost more are drawn at the edge
FEW_NAMES = 5  # trials whose names fit side by side
MANY_POINTS = 15  # trials: with more, only those on the front are numbered


def front_plot(trials: Sequence[Row], front: Sequence[str], chosen: str | None, metric: str) -> str:
    """Return accuracy against latency of all trials, with the front, the chosen engine, the baseline and the budget.

    Args:
        trials: All trials.
        front: Fingerprints of those on the front.
        chosen: Fingerprint of the chosen engine, None where the baseline was kept.
        metric: What accuracy is measured in.
    """
    shown = [row for row in trials if math.isfinite(_score(row)) and math.isfinite(_ratio(row))]
    if not shown:
        return ""
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    required = _score(shown[0]) - sign * _excess(shown[0])
    room = max(abs(_score(row) - required) for row in shown if _excess(row) >= 0.0) if any(_excess(row) >= 0.0 for row in shown) else 0.0
    edge = required - sign * OFF_SCALE * room if room > 0.0 else -sign * math.inf

    def height(row: Row) -> float:
        return sign * max(sign * _score(row), sign * edge)

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        dress(axes, "Accuracy against latency", "latency / latency of the baseline", f"{metric}, all validation samples")
        axes.axhline(required, color=BAD, linestyle="--", linewidth=1.0, label=f"budget: {required:.5g}")
        best = sorted((row for row in shown if row["fingerprint"] in front), key=_ratio)
        axes.plot([_ratio(row) for row in best], [height(row) for row in best], color=FAINT, linewidth=0.9, label="front", zorder=2)
        for row in shown:
            low = bool(row["low_layers"])
            off = height(row) != _score(row)
            style = ("v" if sign > 0 else "^") if off else "o" if low else "s"
            colour = INK if not low else GOOD if _excess(row) >= 0.0 else BAD
            filled = row["fingerprint"] in front
            axes.plot(_ratio(row), height(row), style, color=colour, markerfacecolor=colour if filled else "white", markersize=5, zorder=3)
            if row["fingerprint"] == chosen:
                axes.plot(_ratio(row), height(row), "*", color=CHOSEN, markeredgecolor=INK, markeredgewidth=0.5, markersize=12, zorder=4)
            if filled or row["fingerprint"] == chosen or off or len(shown) <= MANY_POINTS:
                text = f"{row['index']} ({_score(row):.4g})" if off else str(row["index"])
                axes.annotate(text, (_ratio(row), height(row)), xytext=(5, 4), textcoords="offset points", fontsize=7)
        _key(axes, [("s", INK, "baseline"), ("o", GOOD, "within the budget"), ("o", BAD, "over the budget")], chosen is not None)
        axes.margins(x=0.08, y=0.12)
        if sign < 0:
            axes.invert_yaxis()

    return svg_of("front", "Accuracy against latency of all trials", (HALF, 3.9), (0.75, 0.85), paint)


def path_plot(trials: Sequence[Row], chosen: str | None) -> str:
    """Return how the search went: latency and low layers of each trial, and whether it kept the budget.

    Args:
        trials: All trials, in the order in which they were made.
        chosen: Fingerprint of the chosen engine, None where the baseline was kept.
    """
    if not trials:
        return ""
    places = list(range(len(trials)))
    names = [
        label_of(f"{row['index']} {row['order']}" if not place or row["order"] != trials[place - 1]["order"] else str(row["index"]))
        for place, row in enumerate(trials)
    ]
    upright = len(trials) > FEW_NAMES
    room = room_for(names, 7.0) if upright else 0.35

    def paint(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        dress(above, "The path of the search", "", "latency / baseline")
        dress(below, "", "trial and what proposed it", "low layers")
        above.plot(places, [_ratio(row) for row in trials], color=FAINT, linewidth=0.7, zorder=1)
        below.plot(places, [number(row["low_layers"]) for row in trials], color=FAINT, linewidth=0.7, zorder=1)
        for place, row in zip(places, trials, strict=True):
            style, colour, face = ("X", BAD, BAD) if row["failure"] else ("o", GOOD, GOOD) if _excess(row) >= 0.0 else ("o", BAD, "white")
            for axes, value in ((above, _ratio(row)), (below, number(row["low_layers"]))):
                axes.plot(place, value, style, color=colour, markerfacecolor=face, markersize=5, zorder=3)
            if row["fingerprint"] == chosen:
                above.plot(place, _ratio(row), "*", color=CHOSEN, markeredgecolor=INK, markeredgewidth=0.5, markersize=12, zorder=4)
        below.set_xticks(places, names, rotation=90 if upright else 20, fontsize=7)
        below.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        for axes in (above, below):
            axes.margins(x=0.06, y=0.18)
        key = [("o", GOOD, "within the budget"), ("o", BAD, "over the budget")]
        failed = [("X", BAD, "failed")] if any(row["failure"] for row in trials) else []
        _key(above, key + failed, chosen is not None)

    title = "Latency and number of low layers of each trial, in the order of the search"
    return svg_of("path", title, (HALF, 3.55 + room), (0.75, 0.65 + room), paint)


def prediction_plot(trials: Sequence[Row], predictions: Sequence[Row]) -> str:
    """Return predicted against measured latency and loss.

    Args:
        trials: All trials.
        predictions: ``ratio`` and ``loss`` that the models said, by ``fingerprint``.
    """
    said = {row["fingerprint"]: row for row in predictions}
    points = [(row, said[row["fingerprint"]]) for row in trials if row["fingerprint"] in said and row["low_layers"]]
    times = _points((row["index"], number(guess["ratio"]), _ratio(row)) for row, guess in points)
    losses = _points((row["index"], number(guess["loss"]), number(row.get("loss"))) for row, guess in points)
    losses = [point for point in losses if min(point[1:]) > 0.0]  # the axes are logarithmic
    panels = [panel for panel in (("Latency / baseline", times, False), ("Loss of the outputs", losses, True)) if panel[1]]
    if not panels:
        return ""

    def paint(figure: Figure) -> None:
        many = figure.subplots(1, 2, squeeze=False)[0]
        for axes, (title, found, is_log) in zip(many, panels, strict=False):
            dress(axes, title, "predicted", "measured")
            _diagonal(axes, found, is_log=is_log)
            for index, x, y in found:
                axes.plot(x, y, "o", color=colour_of("int8"), markersize=5)
                axes.annotate(str(index), (x, y), xytext=(5, 4), textcoords="offset points", fontsize=7)
        for axes in many[len(panels) :]:
            axes.set_axis_off()

    return svg_of("predicted", "Predicted against measured latency and loss", (WIDE, 3.4), (0.75, 0.5), paint)


def _points(found: object) -> list[tuple[object, float, float]]:
    return [point for point in cast("Sequence[tuple[object, float, float]]", found) if math.isfinite(point[1]) and math.isfinite(point[2])]


def _diagonal(axes: Axes, found: Sequence[tuple[object, float, float]], *, is_log: bool) -> None:
    """Draw where prediction and measurement agree, over equal ranges of both."""
    values = [value for _, *pair in found for value in pair]
    low, high = min(values), max(values)
    if is_log:
        axes.set_xscale("log")
        axes.set_yscale("log")
        plain_powers(axes.xaxis)
        plain_powers(axes.yaxis)
        low, high = low / 1.6, high * 1.6
    else:
        margin = max(0.15 * (high - low), 0.02)
        low, high = low - margin, high + margin
    axes.plot([low, high], [low, high], color=FAINT, linewidth=0.8, linestyle="--", label="prediction = measurement")
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.legend(loc="upper left")


def _key(axes: Axes, entries: Sequence[tuple[str, str, str]], has_chosen: bool) -> None:
    """Say below the axes what the marks mean."""
    for style, colour, text in entries:
        axes.plot([], [], style, color=colour, markerfacecolor="white" if text.startswith("over") else colour, markersize=5, label=text)
    if has_chosen:
        axes.plot([], [], "*", color=CHOSEN, markeredgecolor=INK, markeredgewidth=0.5, markersize=10, label="chosen")
    figure = axes.get_figure()
    assert figure is not None
    figure.legend(loc="lower center", ncols=3, columnspacing=1.2, handletextpad=0.4)


def _score(row: Row) -> float:
    return number((cast("Row | None", row["on_all"]) or {}).get("score"))


def _excess(row: Row) -> float:
    return number((cast("Row | None", row["on_all"]) or {}).get("excess"))


def _ratio(row: Row) -> float:
    return number((cast("Row | None", row["latency"]) or {}).get("ratio"))
