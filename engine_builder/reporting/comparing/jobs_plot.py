"""The plot of several jobs: how much faster each engine is against how much of its accuracy budget it takes."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from calibration.accuracy.verdict import Answer
from engine_builder.reporting.body.job_result import JobResult, Outcome
from engine_builder.reporting.comparing.read_jobs import ComparedJob
from engine_builder.reporting.figures.drawing import BAD, FAINT, GOOD, INK, WIDE, dress, label_of, svg_of
from engine_builder.reporting.figures.label_places import label_points

LOWEST, HIGHEST = -1.0, 3.0  # shares of the budget that are drawn; what is beyond stands at the edge
_MARKS = {Answer.MET: ("o", GOOD, "met"), Answer.MET_ON_SAMPLE: ("D", GOOD, "likely met"), Answer.NOT_MET: ("v", BAD, "not met")}
_KEPT = ("s", INK, "baseline kept")


def speedup_of(result: JobResult) -> float:
    """Return the speed-up, measured or predicted."""
    return result.predicted_speedup.value if result.predicted_speedup is not None else result.speedup or 1.0


def share_of_budget(result: JobResult, drop: float) -> float:
    """Return a drop in budgets; one without any budget counts as taking all of it where something is lost."""
    if result.verdict.budget > 0.0:
        return drop / result.verdict.budget
    return 0.0 if drop <= 0.0 else HIGHEST


def jobs_plot(jobs: Sequence[ComparedJob]) -> str:
    """Return the plot; bars are the intervals of the verdicts.

    Args:
        jobs: At least one.
    """
    points = [(speedup_of(job.body.result), _inside(share_of_budget(job.body.result, _drop(job.body.result)))) for job in jobs]

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        dress(axes, "Speed against accuracy", "times as fast as the job's own baseline", "share of the accuracy budget taken")
        axes.axhline(1.0, color=BAD, linestyle="--", linewidth=1.0, label="the whole budget")
        axes.axhline(0.0, color=FAINT, linewidth=0.7)
        used = []
        for job, (x, y) in zip(jobs, points, strict=True):
            result = job.body.result
            mark = _KEPT if result.outcome is Outcome.BASELINE_KEPT else _MARKS[result.verdict.answer]
            used.append(mark)
            if result.outcome is not Outcome.BASELINE_KEPT:
                low, high = (_inside(share_of_budget(result, end)) for end in result.verdict.interval)
                axes.plot([x, x], [low, high], color=mark[1], linewidth=0.9, zorder=2)
            axes.plot(x, y, mark[0], color=mark[1], markersize=6, zorder=3)
        for style, colour, text in dict.fromkeys(used):
            axes.plot([], [], style, color=colour, markersize=6, label=text)
        figure.legend(loc="lower center", ncols=5)
        axes.margins(x=0.12, y=0.15)
        label_points(axes, points, [(place, label_of(job.name)) for place, job in enumerate(jobs)])

    return svg_of("jobs", "Speed-up of each job against the share of its accuracy budget", (WIDE, 4.2), (0.75, 0.75), paint)


def _drop(result: JobResult) -> float:
    return 0.0 if result.outcome is Outcome.BASELINE_KEPT else result.verdict.drop


def _inside(share: float) -> float:
    return min(max(share, LOWEST), HIGHEST)
