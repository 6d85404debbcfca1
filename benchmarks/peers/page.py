"""The page and the plot of all tools on all networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.artist import Artist
from matplotlib.figure import Figure

from benchmarks.kinds.case import Quality
from benchmarks.peers.comparing import FLOAT, SESSIONS, Comparison, Row
from benchmarks.results_files import environment_line, markdown_table
from benchmarks.svg_files import svg_file
from engine_builder.reporting.figures.drawing import WIDE, dress, svg_of

_COLUMNS = 3
_HEIGHT = 1.9  # inches of a network's plot
_LINE = 0.99  # the budget that is drawn
_LOWEST = 0.9  # quality kept: what is below stands at the lower edge
_SLOWEST = 1.2  # ratio: what is slower stands at the right edge
_MARKS = {"quantize_static": ("s", "#8a949e"), "quantize_dynamic": ("^", "#0b6fa4"), "MatMulNBits, 8 bits": ("D", "#7b4fa3")}
_OTHER, _OURS, _OURS_TIGHTER = ("v", "#b3862b"), ("o", "#1b7f4b"), ("*", "#0d4a2b")
_HEADERS = ["network", "tool", "ratio", "kept", "truth", "keeps 99%", "keeps 99.9%", "CPU s"]


def page(found: Sequence[Comparison], where: Mapping[str, object]) -> str:
    """Return the page of results."""
    return (
        "# Peers\n\nonnxruntime's own quantizers, called in one line as its documentation shows, beside whole jobs of this project on the "
        "same networks and calibration data. All engines of a network are loaded in plain onnxruntime and timed in turns in one process: "
        "*ratio* is the CPU time of one thread, divided by the float model's "
        f"(mean of {SESSIONS} sessions ± standard error). *Kept* is the user's measure "
        "with the float model's answers as the truth, *truth* the same against labels, both on samples that no tool saw; an engine "
        "keeps a budget if it does by the float model's answers, or by labels: that counts where the jobs had any, since nobody can "
        "know it without. Jobs without labels judge by measures of their own (`benchmarks.kinds`). "
        "*CPU s* is what it took to make the engine.\n\n"
        + markdown_table(_HEADERS, [_row(one, row) for one in found for row in one.rows])
        + "\n## Where a peer is ahead\n\n"
        + behind(found)
        + f"\n{environment_line(where)} Repeat with `make bench-peers`.\n"
    )


def behind(found: Sequence[Comparison]) -> str:
    """Return a line for each peer's engine that keeps a job's budget and is faster than the job's beyond the timing's error."""
    lines = [
        f"- {one.network}, {ours.tool}: {row.tool} takes {row.ratio:.3f}, the job's engine {ours.latency:.3f}.\n"
        for one in found
        for ours in one.rows
        for row in one.ahead_of(ours)
    ]
    return "".join(lines) or "Nowhere: no peer's engine that keeps a job's budget is faster by more than the timing's error.\n"


def plot(found: Sequence[Comparison]) -> str:
    """Return the same as a picture, SVG: a plot for each network, latency against quality kept."""
    rows = -(-len(found) // _COLUMNS)

    def paint(figure: Figure) -> None:
        for index, one in enumerate(found):
            axes = figure.add_subplot(rows, _COLUMNS, index + 1)
            for row in one.rows:
                if row.quality is not None and row.ratio is not None:
                    mark, colour = (".", "black") if row.tool == FLOAT else _mark(row)
                    axes.plot(
                        [min(row.ratio, _SLOWEST)], [max(row.quality.kept, _LOWEST)], mark, color=colour, label=row.tool, markersize=5
                    )
            axes.axhline(_LINE, color="#c0362c", linewidth=0.6)
            dress(axes, one.network, "", "")
            axes.set_ylim(_LOWEST - 0.004, 1.004)
            axes.set_xlim(0, _SLOWEST + 0.04)
        handles: dict[str, Artist] = {}
        for axes in figure.axes:
            handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True) if label not in handles}
        figure.legend(list(handles.values()), list(handles), loc="lower center", ncols=4)
        figure.subplots_adjust(hspace=0.55, wspace=0.22)
        figure.supxlabel(f"latency, of the float model's (above {_SLOWEST:g}: at the edge)", y=0.5 / figure.get_figheight(), fontsize=8)
        figure.supylabel(f"quality kept (below {_LOWEST:g}: at the edge)", x=0.002, fontsize=8)

    title = "Latency against quality kept, of all tools on all networks; the line is a budget of 99%"
    return svg_file(svg_of("peers", title, (WIDE, _HEIGHT * rows + 1.05), (0.75, 1.05), paint))


def _mark(row: Row) -> tuple[str, str]:
    if row.budget is not None:
        return _OURS_TIGHTER if row.budget > _LINE else _OURS
    return _MARKS.get(row.tool, _OTHER)


def _keeps(one: Comparison, quality: Quality, budget: float) -> str:
    if quality.kept >= budget:
        return "yes"
    return "by labels" if quality.truth >= budget * one.truth else "no"


def _row(one: Comparison, row: Row) -> list[str]:
    if row.quality is None or row.ratio is None:
        return [one.network, row.tool, f"none: {row.message}", *["-"] * 4, f"{row.seconds:.1f}"]
    kept = [_keeps(one, row.quality, budget) for budget in (0.99, 0.999)]
    return [
        one.network,
        row.tool,
        f"{row.ratio:.3f} ± {row.ratio_error:.3f}",
        f"{row.quality.kept:.4f}",
        f"{row.quality.truth:.4f}",
        *kept,
        f"{row.seconds:.1f}",
    ]
