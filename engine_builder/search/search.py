"""The search: which assignment to try next, given what the trials so far found. Pure: the same trials give the same proposals.

1. The baseline and the uniform engines: every layer low, in the first precision, then in each other one. If all of those that could be
   built meet the budget, only time is left to search for: the end of the predicted frontier is tried and, where that came out slower
   than predicted, the end of the refitted one. If the first of them misses it, its products alone are tried next: all low but the
   residual sums.
2. Bisection over each ladder: a ladder is a sequence of assignments, the cheapest in accuracy first: the predicted frontier, or the
   prefixes of an order. It decides on the shrunk excess (shrinkage.py); then the rungs around the boundary are tried, whatever the
   answers were. A rung that is predicted to be slower than an engine already found, beyond the error of predictions, is not tried.
3. Trials are known by their fingerprint, so that ladders share them. Three failures in a row end the search with what was found.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from engine_builder.bisection import Bisection
from engine_builder.records.trial import Accuracy, Trial
from engine_builder.search.drop_shrinkage import shrunk_excess
from engine_builder.search.search_space import BASELINE, PRODUCTS, Low

FRONTIER, REFINED = "frontier", "refine"  # names of the ladder that is predicted first, and of that from models refitted to all trials
FIRST_TRIALS = 2  # the baseline and the first uniform engine
MAX_FAILURES = 3  # in a row
DEFAULT_MAX_TRIALS = 40
TOLERANCE = 0.05  # relative error of a predicted latency, about
OPENING = 0.02  # a ladder is bisected on while a rung is predicted to be at most this much slower than the best engine so far
WORTH_TRYING = 0.03  # over the baseline: a smaller predicted gain is within the error of predictions
AROUND = (-1, 1, 2)  # rungs tried around the boundary, relative to it


@dataclass(frozen=True, slots=True)
class Proposal:
    """What to try, and why."""

    low: Low
    order: str


@dataclass(frozen=True, slots=True)
class Ladder:
    """Assignments of growing cost in accuracy, and the latency that is predicted for each as a ratio to the baseline's."""

    name: str
    rungs: tuple[Low, ...]
    ratios: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check that there is a prediction for every rung."""
        if len(self.rungs) != len(self.ratios):
            raise ValueError(f"ladder {self.name!r} has {len(self.rungs)} rungs and {len(self.ratios)} predictions")


def mean_seconds(trials: Iterable[Trial]) -> float:
    """Return what a trial took on average, the baseline's apart, which builds nothing; 0 where none is known."""
    known = [trial.seconds for trial in trials if trial.low_layers and trial.seconds > 0.0]
    return sum(known) / len(known) if known else 0.0


class Search:
    """Proposes assignments and is told the trials. Not thread-safe; deterministic."""

    def __init__(
        self,
        uniform: Mapping[str, Low],
        ladders: Callable[[Sequence[Trial]], Iterator[Ladder]],
        fingerprint: Callable[[Low], str],
        *,
        max_trials: int | None,
        max_seconds: float | None,
        seconds: Callable[[], float],
        view: Callable[[Sequence[Trial]], Callable[[Trial], Accuracy | None]],
        products: Low | None = None,
    ) -> None:
        """Start.

        Args:
            uniform: The uniform engines by name, in the order in which they are tried.
            ladders: Called once with the list of trials, which goes on growing; yields the ladders to bisect, in order.
            fingerprint: Name of an assignment by its content.
            max_trials: Trials at the most, the first two included.
            max_seconds: No trial is proposed that would end past this, if it took the mean of those so far; the first two always are.
            seconds: What the job's stages so far took, as recorded.
            products: The first uniform engine without its residual sums, where it has any.
            view: Told the baseline's and the uniform engines' trials, returns which accuracy of a trial the search may look at.
        """
        self.trials: list[Trial] = []
        self._ladders = ladders
        self.fingerprint = fingerprint
        self.ended = "running"  # why the search is over, once it is
        self._max_trials = max_trials or DEFAULT_MAX_TRIALS
        self._max_seconds = max_seconds
        self._seconds = seconds
        self._view_of = view
        self._view: Callable[[Trial], Accuracy | None] = lambda trial: None  # until the first trials are known
        self._plan = self._steps(uniform, products or {})
        self._next: Proposal | None = next(self._plan)

    def next(self) -> Proposal | None:
        """Return what to try next, None when the search is over."""
        return self._next

    def tell(self, trial: Trial) -> None:
        """Take in the trial of the last proposal."""
        self.trials.append(trial)
        self._next, ended = None, self._limit()
        if ended is None:
            try:
                proposal = self._plan.send(trial)
                ended = self._limit()  # again: what yields the ladders may have taken the time that was left
                self._next = proposal if ended is None else None
            except StopIteration:
                ended = "nothing left to try"
        self.ended = ended or self.ended

    def _limit(self) -> str | None:
        """Return the limit that the trials have reached, if any."""
        failed = [trial.failure is not None for trial in self.trials[-MAX_FAILURES:]]
        if len(failed) == MAX_FAILURES and all(failed):
            return f"{MAX_FAILURES} trials in a row failed"
        if len(self.trials) >= self._max_trials:
            return f"the limit of {self._max_trials} trials was reached"
        if self._max_seconds is not None and len(self.trials) >= FIRST_TRIALS:
            if self._seconds() >= self._max_seconds:
                return f"the limit of {self._max_seconds:g} seconds was reached"
            usual = mean_seconds(self.trials)
            if self._seconds() + usual > self._max_seconds:
                return f"the limit of {self._max_seconds:g} seconds leaves no time for another trial of about {usual:.3g} seconds"
        return None

    def _steps(self, uniform: Mapping[str, Low], products: Low) -> Generator[Proposal, Trial, None]:
        known = {self.fingerprint({}): (yield Proposal({}, BASELINE))}
        if not any(uniform.values()):
            return
        tried = []
        for name, low in uniform.items():
            tried.append((yield from self._try(low, name, known)))
        self._view = self._view_of(self.trials)
        built = [trial for trial in tried if trial.failure is None]
        lossless = bool(built) and all(self._is_met(trial) for trial in built)
        if products and not self._is_met(tried[0]):
            yield from self._try(products, PRODUCTS, known)
        for ladder in self._ladders(self.trials):
            if not lossless:
                yield from self._climb(ladder, known)
            elif ladder.name == REFINED:  # by now the baseline is to be beaten, too
                fastest = _fastest([trial for trial in self.trials if self._is_met(trial)])
                yield from self._quicken(ladder, known, min(fastest, 1.0 - WORTH_TRYING))
            elif (ladder.name == FRONTIER or all(trial.latency is None for trial in built)) and (
                yield from self._quicken(ladder, known, _fastest(built))
            ):
                return

    def _quicken(self, ladder: Ladder, known: dict[str, Trial], below: float) -> Generator[Proposal, Trial, bool]:
        """Try the assignment that is predicted to be fastest, if its ratio is below; return whether no more is to be found out."""
        if not ladder.ratios or ladder.ratios[-1] >= below:
            return True
        trial = yield from self._try(ladder.rungs[-1], ladder.name, known)
        return trial.latency is not None and trial.latency.ratio <= ladder.ratios[-1] * (1.0 + TOLERANCE)

    def _climb(self, ladder: Ladder, known: dict[str, Trial]) -> Generator[Proposal, Trial, None]:
        """Bisect a ladder for as long as a rung that is still open may win, then try the rungs around the boundary that may."""
        state = Bisection(0, len(ladder.rungs))
        while (rung := state.next()) is not None and self._may_win(ladder, range(state.low + 1, state.high + 1), OPENING):
            trial = yield from self._try(ladder.rungs[rung - 1], ladder.name, known)
            state = state.tell(rung, met=self._fits(trial))
        for rung in (state.low + offset for offset in AROUND):
            if 1 <= rung <= len(ladder.rungs) and self._may_win(ladder, (rung,), TOLERANCE):
                yield from self._try(ladder.rungs[rung - 1], ladder.name, known)

    def _may_win(self, ladder: Ladder, rungs: Iterable[int], tolerance: float) -> bool:
        """Return whether one of the rungs is predicted to be about as fast as the fastest engine that meets the budget, or faster."""
        best = min((trial.latency.ratio for trial in self.trials if trial.latency is not None and self._is_met(trial)), default=1.0)
        return any(ladder.ratios[rung - 1] <= best * (1.0 + tolerance) for rung in rungs)

    def _try(self, low: Low, order: str, known: dict[str, Trial]) -> Generator[Proposal, Trial, Trial]:
        name = self.fingerprint(low)
        if name not in known:
            known[name] = yield Proposal(low, order)
        return known[name]

    def _is_met(self, trial: Trial) -> bool:
        """Return whether the budget is met on the samples that the search may look at."""
        accuracy = self._view(trial)
        return accuracy is not None and accuracy.met

    def _fits(self, trial: Trial) -> bool:
        """Return whether the budget is likely to be met, given all trials."""
        accuracy = self._view(trial)
        seen = [item for other in self.trials if (item := self._view(other)) is not None]
        return accuracy is not None and shrunk_excess(accuracy, seen) >= 0.0


def _fastest(trials: Sequence[Trial]) -> float:
    """Return the lowest ratio among the trials, 0 where none was timed."""
    return min((trial.latency.ratio for trial in trials if trial.latency is not None), default=0.0)
