"""The plots of layers: what each costs in accuracy, what it takes in time, and how layers depend on each other.

Each returns an ``<svg>`` element, or nothing where the report holds nothing to draw. Layers are far more than a page can show: the first
MAX_BARS by what the plot is about are drawn, and the title says of how many.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

from calibration.accuracy.metrics import Metric
from engine_builder.reporting.amounts import POINTS, is_share
from engine_builder.reporting.body.layer_facts import DependencyMap, MeasuredPair, ReportedLayer
from engine_builder.reporting.body.score_of_loss import ScoreOfLoss
from engine_builder.reporting.figures.drawing import (
    BAD,
    BEFORE,
    HALF,
    INK,
    TOP,
    WIDE,
    colour_of,
    dress,
    label_of,
    number,
    plain_powers,
    room_for,
    svg_of,
)
from engine_builder.search.search_space import BASELINE

MAX_BARS = 40
ROW_INCHES = 0.185
_FEW_DECADES = 2.5  # of an axis on which numbers between the powers of ten fit
_BESIDE = 1.3  # times the budget: the right edge, where the budget lies beyond all losses
_FAR = 10.0  # times the largest loss: a budget beyond is not drawn
CLIPPED = 99  # percentile of the dependencies at which the colours end


@dataclass(frozen=True, slots=True)
class ScoreScale:
    """A second axis for losses: what they cost in the job's metric, about."""

    law: ScoreOfLoss
    metric: Metric
    budget: float  # largest drop allowed, in the metric


def sensitivity_plot(layers: Sequence[ReportedLayer], scale: ScoreScale | None = None) -> str:
    """Return the loss with only one layer quantized, and its Hessian estimate, of the most sensitive layers, coloured by chosen precision.

    Args:
        layers: All layers.
        scale: Tells above the axes what the losses cost in the job's metric; None where that is not known.
    """
    probed = [row for row in layers if math.isfinite(number(row.loss))]
    if not probed:
        return ""
    rows = sorted(probed, key=lambda row: -number(row.loss))[:MAX_BARS]
    values = [value for row in rows for value in (row.loss, row.hessian)]
    positive = [value for value in values if value is not None and value > 0.0]
    floor = min(positive) / 3.0 if positive else 1e-9

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        title = "Sensitivity of each layer" if len(rows) == len(probed) else f"The {len(rows)} most sensitive of {len(probed)} layers"
        dress(axes, title, "loss with only this layer quantized (log scale)", "", grid="x")
        axes.set_xscale("log")
        plain_powers(axes.xaxis)
        for place, row in enumerate(rows):
            colour = colour_of(row.precision)
            axes.plot([floor, _at_least(number(row.loss), floor)], [place, place], color=colour, linewidth=3.0, alpha=0.22, zorder=1)
            _mark(axes, row.loss, row.loss_error, place - 0.14, floor, ("o", colour, colour))
            _mark(axes, row.hessian, row.hessian_error, place + 0.2, floor, ("D", colour, "white"))
        axes.plot([], [], "o", color=INK, markersize=4, label="measured, ± standard error")
        if any(math.isfinite(number(row.hessian)) for row in rows):
            axes.plot([], [], "D", color=INK, markerfacecolor="white", markersize=4, label="Hessian estimate")
        _name_rows(axes, [_named(row.name, row.precision) for row in rows])
        axes.set_xlim(left=floor)
        if scale is not None:
            _add_scale(figure, axes, scale)
        figure.legend(loc="lower center", ncols=3)

    return svg_of(
        "sensitivity",
        "Sensitivity of each layer, with standard errors",
        (HALF, _height(len(rows))),
        _margins(_named(row.name, row.precision) for row in rows),
        paint,
    )


def _add_scale(figure: Figure, axes: Axes, scale: ScoreScale) -> None:
    """Tell above the axes what the losses cost, and where one layer alone would take the whole budget."""
    law, unit = scale.law, POINTS if is_share(scale.metric) else 1.0
    least, most = axes.get_xlim()

    def drop_of(loss: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(unit * law.drop * (np.maximum(loss, least / _FAR) / law.loss) ** law.exponent)

    def loss_of(drop: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(law.loss * (np.maximum(drop, 1e-300) / unit / law.drop) ** (1.0 / law.exponent))

    whole = law.loss_of(scale.budget) if scale.budget > 0.0 else math.nan
    if least < whole < most * _FAR:
        axes.axvline(whole, color=BAD, linestyle="--", linewidth=1.0, label="the whole budget, about")
        most = max(most, _BESIDE * whole)
        axes.set_xlim(right=most)
    above = axes.secondary_xaxis("top", functions=(drop_of, loss_of))
    above.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if _decades(drop_of(least), drop_of(most)) <= _FEW_DECADES else (1.0,)))
    above.xaxis.set_minor_locator(NullLocator())
    above.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    above.tick_params(labelsize=7, pad=1)
    above.spines["top"].set_visible(True)
    name = f"{scale.metric.spec.worsening} of {scale.metric}{' in points' if unit == POINTS else ''}"
    above.set_xlabel(f"{name}, about (factor {math.exp(law.deviation):.1f} either way)", fontsize=7.5, labelpad=2)
    figure.subplots_adjust(top=1.0 - (TOP + 0.42) / figure.get_figheight())


def _decades(low: ArrayLike, high: ArrayLike) -> float:
    return float(np.log10(high) - np.log10(low))


def kernel_plot(kernels_ms: Mapping[str, Mapping[str, float]], layers: Sequence[ReportedLayer], baseline: str) -> str:
    """Return the kernel time of each layer in the baseline engine and in that with every layer quantized, in the precision that it got.

    A layer that got none has the time of its first low precision.

    Args:
        kernels_ms: Milliseconds of one call, by layer and precision, those in the baseline engine as "baseline".
        layers: All layers, with the precision that each got.
        baseline: The precision of layers that are not quantized.
    """
    precision = {row.name: row.precision for row in layers}
    timed = [name for name in kernels_ms if name in precision and max(kernels_ms[name].values()) > 0.0]
    if not timed:
        return ""
    names = sorted(timed, key=lambda name: (-max(kernels_ms[name].values()), name))[:MAX_BARS]
    quantized = [name for name in names if precision[name] in kernels_ms[name]]
    kept = [name for name in names if precision[name] not in kernels_ms[name]]
    shown = [_named(name, precision[name]) for name in names]
    after = {name: kernels_ms[name][precision[name] if name in quantized else _first_quantized(kernels_ms[name])] for name in names}

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        title = "Kernel time of each layer" if len(names) == len(timed) else f"The {len(names)} slowest of {len(timed)} layers"
        dress(axes, title, "milliseconds of one call", "", grid="x")
        at = {name: place for place, name in enumerate(names)}
        axes.barh(
            [at[name] - 0.2 for name in names], [kernels_ms[name][BASELINE] for name in names], 0.38, color=BEFORE, label="baseline engine"
        )
        for group in dict.fromkeys(precision[name] for name in quantized):
            some = [name for name in quantized if precision[name] == group]
            axes.barh([at[name] + 0.2 for name in some], [after[name] for name in some], 0.38, color=colour_of(group), label=group)
        if kept:
            where, times = [at[name] + 0.2 for name in kept], [after[name] for name in kept]
            text = f"quantized, but kept at {baseline}"
            axes.barh(where, times, 0.34, facecolor="white", edgecolor=colour_of(baseline), linewidth=0.7, label=text)
        _name_rows(axes, shown)
        axes.set_xlim(left=0.0)
        figure.legend(loc="lower center", ncols=3)

    return svg_of("kernels", "Kernel time of each layer before and after", (HALF, _height(len(names))), _margins(shown), paint)


def _first_quantized(times: Mapping[str, float]) -> str:
    return next((name for name in times if name != BASELINE), BASELINE)


def kernel_totals(kernels_ms: Mapping[str, Mapping[str, float]], layers: Sequence[ReportedLayer], baseline: str) -> tuple[float, float]:
    """Return the milliseconds of all these kernels in the baseline engine, and as the chosen engine mixes them.

    Args:
        kernels_ms: As for ``kernel_plot``.
        layers: All layers, with the precision that each got.
        baseline: The precision of layers that are not quantized.
    """
    precision = {row.name: row.precision for row in layers}
    before = sum(times[BASELINE] for times in kernels_ms.values())
    return before, sum(times.get(precision.get(name, baseline), times[BASELINE]) for name, times in kernels_ms.items())


def dependency_plot(found: DependencyMap, tests: Sequence[MeasuredPair]) -> str:
    """Return the extra loss of each pair of layers as a heat map; a dot marks the pairs that were tested exactly.

    Args:
        found: The extra losses.
        tests: The exact pair tests.
    """
    names = found.layers
    if len(names) < 2:
        return ""
    values = np.zeros((len(names), len(names)))
    for i, row in enumerate(found.lower):
        values[i, :i] = values[:i, i] = row
    ends = float(np.percentile(np.abs(values[np.tril_indices(len(names), -1)]), CLIPPED)) or float(np.abs(values).max()) or 1.0
    labels = [label_of(name) for name in names]
    points = 6.5 if len(names) <= MAX_BARS else 5.0
    place = {name: index for index, name in enumerate(names)}
    exact = {(test.first, test.second) for test in tests}
    dots = [pair for i, j in exact if i in place and j in place for pair in ((place[i], place[j]), (place[j], place[i]))]

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        np.fill_diagonal(values, np.nan)
        image = axes.imshow(values, cmap="RdBu_r", vmin=-ends, vmax=ends, interpolation="none")
        dress(axes, "Loss of both quantized, less that of each alone", "", "", grid="")
        if dots:
            axes.plot(*zip(*sorted(dots), strict=True), "o", color=INK, markersize=1.3, markeredgewidth=0, label="tested exactly")
            figure.legend(loc="lower left")
        axes.set_xticks(range(len(names)), labels, rotation=90, fontsize=points)
        axes.set_yticks(range(len(names)), labels, fontsize=points)
        axes.tick_params(length=0)
        text = "blue: errors cancel · red: errors add up"
        axes.set_anchor("W")
        beside = axes.inset_axes((1.04, 0.2, 0.025, 0.6))
        bar = figure.colorbar(image, cax=beside, label=text, extend="both", format=FuncFormatter(lambda value, place: f"{value:.2g}"))
        bar.outline.set_visible(False)

    room = room_for(labels, points)
    width = HALF if 0.15 * len(names) + room + 1.5 <= HALF else WIDE
    side = min(max(0.15 * len(names), 2.0), width - room - 1.5)
    return svg_of("dependency", "Dependency of each pair of layers", (width, TOP + side + room + 0.3), (room, room + 0.3), paint)


def bars_left_out(layers: Sequence[ReportedLayer]) -> int:
    """Return how many probed layers the plot of sensitivities leaves out."""
    return max(sum(row.loss is not None for row in layers) - MAX_BARS, 0)


def _mark(axes: Axes, value: float | None, error: float | None, place: float, floor: float, look: tuple[str, str, str]) -> None:
    """Draw a value with its error; on a logarithmic axis both end at ``floor``."""
    if value is None or not math.isfinite(value):
        return
    style, colour, face = look
    shown = _at_least(value, floor)
    if error is not None and math.isfinite(error):
        axes.plot([_at_least(value - error, floor), _at_least(value + error, floor)], [place, place], color=colour, linewidth=0.9, zorder=2)
    axes.plot(shown, place, style, color=colour, markerfacecolor=face, markersize=3.4, markeredgewidth=0.8, zorder=3, clip_on=False)


def _at_least(value: float, floor: float) -> float:
    return max(value, floor)


def _named(name: str, precision: str) -> str:
    """Return a layer's name as it stands beside its row, with the precision that it got: a colour alone does not tell."""
    return f"{label_of(name)} · {precision}"


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _height(rows: int) -> float:
    return 1.25 + ROW_INCHES * max(rows, 3)


def _margins(names: Iterable[str]) -> tuple[float, float]:
    return room_for(names, 7.0), 0.85
