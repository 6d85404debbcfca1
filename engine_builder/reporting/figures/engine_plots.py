"""The plots of whole engines: the front of all trials, the path of the search, and what was predicted against what was measured.

Each returns an ``<svg>`` element, or nothing where the report holds nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from calibration.accuracy.metrics import Better, Metric
from engine_builder.records.trial import Trial
from engine_builder.reporting.body.search_facts import Prediction, order_in_words
from engine_builder.reporting.figures.drawing import (
    BAD,
    CHOSEN,
    FAINT,
    GOOD,
    HALF,
    INK,
    dress,
    label_of,
    number,
    plain_powers,
    room_for,
    svg_of,
)
from engine_builder.reporting.figures.label_places import label_points

OFF_SCALE = 6.0  # times the budget: engines that lost more are drawn at the edge
FEW_NAMES, SHORT_NAME = 5, 10  # trials, and letters of each, whose names fit side by side
WITHIN, OVER, FAILED = ("o", GOOD), ("v", BAD), ("X", BAD)  # shape and colour of an engine's mark
MANY_POINTS = 15  # trials: with more, only those on the front are numbered


def front_plot(trials: Sequence[Trial], front: Collection[str], chosen: str | None, metric: Metric) -> str:
    """Return accuracy against latency of all trials, with the front, the chosen engine, the baseline and the budget.

    Bars are standard errors of latencies.

    Args:
        trials: All trials.
        front: Fingerprints of those on the front.
        chosen: Fingerprint of the chosen engine, None where the baseline was kept.
        metric: What accuracy is measured in.
    """
    shown = [trial for trial in trials if math.isfinite(_score(trial)) and math.isfinite(_ratio(trial))]
    if not shown:
        return ""
    sign = -1.0 if metric.spec.better is Better.LOWER else 1.0
    required = _score(shown[0]) - sign * _slack(shown[0])
    room = max((abs(_score(trial) - required) for trial in shown if _slack(trial) >= 0.0), default=0.0)
    edge = required - sign * OFF_SCALE * room if room > 0.0 else -sign * math.inf

    def height(trial: Trial) -> float:
        return sign * max(sign * _score(trial), sign * edge)

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        dress(axes, "Accuracy against latency", "latency / latency of the baseline", f"{metric}, all validation samples")
        axes.axhline(required, color=BAD, linestyle="--", linewidth=1.0, label=f"budget: {required:.5g}")
        best = sorted((trial for trial in shown if trial.fingerprint in front), key=_ratio)
        axes.plot([_ratio(trial) for trial in best], [height(trial) for trial in best], color=FAINT, linewidth=0.9, label="front", zorder=2)
        for trial in shown:
            style, colour = ("s", INK) if not trial.low_layers else WITHIN if trial.met else OVER
            face = colour if trial.fingerprint in front else "white"
            if _error(trial) > 0.0:
                axes.errorbar(_ratio(trial), height(trial), xerr=_error(trial), fmt="none", ecolor=colour, elinewidth=0.7, zorder=2)
            axes.plot(_ratio(trial), height(trial), style, color=colour, markerfacecolor=face, markersize=5, zorder=3)
            if trial.fingerprint == chosen:
                _star(axes, _ratio(trial), height(trial))
        _key(axes, [("s", INK, "baseline"), (*WITHIN, "inside the budget"), (*OVER, "not likely inside")], chosen)
        axes.margins(x=0.08, y=0.12)
        if sign < 0:
            axes.invert_yaxis()
        labels = []
        for place, trial in enumerate(shown):
            off = height(trial) != _score(trial)
            rank = 0 if trial.fingerprint == chosen else 1 if trial.fingerprint in front or off else 2
            if rank < 2 or len(shown) <= MANY_POINTS:
                labels.append((rank, place, f"{trial.index} ({_score(trial):.4g})" if off else str(trial.index)))
        label_points(axes, [(_ratio(one), height(one)) for one in shown], [(place, text) for _, place, text in sorted(labels)])

    return svg_of("front", "Accuracy against latency of all trials", (HALF, 3.9), (0.75, 0.85), paint)


def path_plot(trials: Sequence[Trial], chosen: str | None) -> str:
    """Return how the search went: latency and quantized layers of each trial, and whether it kept the budget.

    Args:
        trials: All trials, in the order in which they were made.
        chosen: Fingerprint of the chosen engine, None where the baseline was kept.
    """
    if not trials:
        return ""
    places = list(range(len(trials)))
    names = [
        label_of(
            f"{trial.index} {order_in_words(trial.order)}" if not place or trial.order != trials[place - 1].order else str(trial.index)
        )
        for place, trial in enumerate(trials)
    ]
    upright = len(trials) > FEW_NAMES or max(map(len, names)) > SHORT_NAME
    room = room_for(names, 7.0) if upright else 0.35

    def paint(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        dress(above, "The path of the search", "", "latency / baseline")
        dress(below, "", "trial and what proposed it", "quantized layers")
        above.plot(places, [_ratio(trial) for trial in trials], color=FAINT, linewidth=0.7, zorder=1)
        if any(_error(trial) > 0.0 for trial in trials):
            errors = [_error(trial) for trial in trials]
            above.errorbar(places, [_ratio(trial) for trial in trials], yerr=errors, fmt="none", ecolor=FAINT, elinewidth=0.9, zorder=2)
        below.plot(places, [trial.low_layers for trial in trials], color=FAINT, linewidth=0.7, zorder=1)
        for place, trial in zip(places, trials, strict=True):
            style, colour = FAILED if trial.failure else WITHIN if trial.met else OVER
            face = "white" if style == OVER[0] else colour
            for axes, value in ((above, _ratio(trial)), (below, trial.low_layers)):
                axes.plot(place, value, style, color=colour, markerfacecolor=face, markersize=5, zorder=3)
            if trial.fingerprint == chosen:
                _star(above, place, _ratio(trial))
        below.set_xticks(places, names, rotation=90 if upright else 20, fontsize=7)
        below.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        for axes in (above, below):
            axes.margins(x=0.06, y=0.18)
        key = [(*WITHIN, "inside the budget"), (*OVER, "not likely inside")]
        _key(above, [*key, (*FAILED, "failed")] if any(trial.failure for trial in trials) else key, chosen)

    title = "Latency and number of quantized layers of each trial, in the order of the search"
    return svg_of("path", title, (HALF, 3.45 + room), (0.75, 0.55 + room), paint)


def prediction_plots(trials: Sequence[Trial], predictions: Sequence[Prediction]) -> tuple[str, ...]:
    """Return predicted against measured latency, and the same of losses; each only where there is something to draw.

    Args:
        trials: All trials.
        predictions: What the models said of them.
    """
    said = {guess.fingerprint: guess for guess in predictions}
    points = [(trial, said[trial.fingerprint]) for trial in trials if trial.fingerprint in said and trial.low_layers]
    times = _points((trial.index, number(guess.ratio), _ratio(trial)) for trial, guess in points)
    losses = _points((trial.index, number(guess.loss), number(trial.loss)) for trial, guess in points)
    losses = [point for point in losses if min(point[1:]) > 0.0]  # the axes are logarithmic
    plots = [
        _prediction("predicted-latency", "Latency / baseline", times, is_log=False) if times else "",
        _prediction("predicted-loss", "Loss of the outputs", losses, is_log=True) if losses else "",
    ]
    return tuple(plot for plot in plots if plot)


def _prediction(name: str, title: str, found: Sequence[tuple[int, float, float]], *, is_log: bool) -> str:
    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        dress(axes, title, "predicted", "measured")
        _diagonal(axes, found, is_log=is_log)
        for _, x, y in found:
            axes.plot(x, y, "o", color=GOOD, markersize=5)
        label_points(axes, [(x, y) for _, x, y in found], [(place, str(point[0])) for place, point in enumerate(found)])

    return svg_of(name, f"Predicted against measured: {title[:1].lower()}{title[1:]}", (HALF, 3.65), (0.75, 0.75), paint)


def _points(found: Iterable[tuple[int, float, float]]) -> list[tuple[int, float, float]]:
    return [point for point in found if math.isfinite(point[1]) and math.isfinite(point[2])]


def _diagonal(axes: Axes, found: Sequence[tuple[int, float, float]], *, is_log: bool) -> None:
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
    figure = axes.get_figure()
    assert figure is not None
    figure.legend(loc="lower center")  # below the axes: points may lie anywhere in them


def _key(axes: Axes, entries: Sequence[tuple[str, str, str]], chosen: str | None) -> None:
    """Say below the axes what the marks mean."""
    for style, colour, text in entries:
        axes.plot([], [], style, color=colour, markerfacecolor="white" if style == OVER[0] else colour, markersize=5, label=text)
    if chosen is not None:
        axes.plot([], [], "*", color=CHOSEN, markeredgecolor=INK, markeredgewidth=0.5, markersize=10, label="chosen")
    figure = axes.get_figure()
    assert figure is not None
    figure.legend(loc="lower center", ncols=3, columnspacing=1.2, handletextpad=0.4)


def _star(axes: Axes, x: float, y: float) -> None:
    axes.plot(x, y, "*", color=CHOSEN, markeredgecolor=INK, markeredgewidth=0.5, markersize=12, zorder=4)


def _score(trial: Trial) -> float:
    return math.nan if trial.on_all is None else trial.on_all.score


def _slack(trial: Trial) -> float:
    return math.nan if trial.on_all is None else trial.on_all.excess


def _error(trial: Trial) -> float:
    """Return the standard error of the ratio, 0 where there is none."""
    return 0.0 if trial.latency is None else trial.latency.ratio_error


def _ratio(trial: Trial) -> float:
    return math.nan if trial.latency is None else trial.latency.ratio
