"""What the result tells of the plan without its weights."""

from __future__ import annotations

from dataclasses import dataclass

from engine_builder.records.stripped_plan import StrippedPlan

NO_TRITON_OF_STRIPPED = (
    "no triton.zip: Triton puts no weights back, and a plan without them answers with zeros; `python refit.py whole.plan` writes one for it"
)


@dataclass(frozen=True, slots=True)
class ReportedStripping:
    """Whether the plan ships without its weights, and what that saves and costs."""

    is_stripped: bool
    why_not: str | None  # None where it is
    in_words: str
    whole_bytes: int  # of the whole plan
    size_bytes: int | None  # of the plan without its weights; None, like all below, where none could be built and run
    weights: tuple[str, ...]  # files that they are put back from, the model first
    weights_bytes: int | None  # of all of these
    load_seconds: float | None  # of opening the plan and putting its weights back, on this machine
    ratio: float | None  # latency with the weights put back / that of the whole plan, timed in turns
    error: float | None  # standard error of ``ratio``


def reported_stripping(plan: StrippedPlan | None) -> ReportedStripping | None:
    """Return what is told; None where no such plan was asked for."""
    if plan is None:
        return None
    return ReportedStripping(
        is_stripped=plan.ships,
        why_not=plan.why_not,
        in_words=_in_words(plan),
        whole_bytes=plan.whole_bytes,
        size_bytes=plan.size_bytes,
        weights=tuple(file.name for file in plan.weights),
        weights_bytes=_weights_bytes(plan),
        load_seconds=plan.load_seconds,
        ratio=None if plan.relative is None else plan.relative.ratio,
        error=None if plan.relative is None else plan.relative.error,
    )


def whole_in_words(found: ReportedStripping | None) -> str:
    """Return why a plan ships whole that was asked for without its weights, with a space before it; empty where that is not so."""
    return "" if found is None or found.is_stripped else f" {found.in_words}"


def _in_words(plan: StrippedPlan) -> str:
    if plan.why_not is not None:
        return f"The plan ships with its weights, although it was asked for without: {plan.why_not}."
    assert plan.size_bytes is not None  # it ships: it was built ...
    assert plan.relative is not None  # ... timed ...
    assert plan.load_seconds is not None  # ... and opened
    weights = _size(_weights_bytes(plan) or 0)
    return (
        f"The plan has no weights: {_size(plan.size_bytes)} in the place of {_size(plan.whole_bytes)}. refit.py puts them back "
        f"from {plan.weights[0].name} ({weights}); opening both took {plan.load_seconds:.2g} s here. With them the engine takes "
        f"{plan.relative.ratio:.3f} ± {plan.relative.error:.3f} of the whole plan's time. All that is told of the engine was measured so."
    )


def _weights_bytes(plan: StrippedPlan) -> int | None:
    return sum(file.size_bytes for file in plan.weights) if plan.weights else None


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes >= _MEGABYTE else f"{size_bytes / 1e3:.1f} kB"


_MEGABYTE = 1_000_000
