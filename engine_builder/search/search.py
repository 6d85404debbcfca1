"""The search: which assignment to try next, given what the trials so far found. Pure: the same trials give the same proposals.

1. The baseline; the float model with its constants folded, where that is another engine; the assignment that the user gave, if any (and
   nothing else, if that is all that is asked for); and the one-format engines: every layer quantized, in the first precision, then in each
   other one. Where the fastest of them misses the budget, the corrections that cost something are measured, and those that may now win are
   built again with them. If the first of them still misses the budget, it is tried next without its residual adds,
   unless it is clearly slower than an engine that keeps the budget.
2. While the fastest engine so far keeps the budget, only time is left to search for, and no layer's loss need be known: the assignment that
   is predicted to be fastest is tried and, where that came out slower than predicted, the one of the refitted model. If what is fastest
   then still keeps the budget, the search is over. Where it does not, and corrections were not needed until then, it is as in 1.
3. Bisection over each candidate sequence: it holds assignments, the cheapest in accuracy first: the predicted frontier, or the
   prefixes of an order. It decides on the shrunk budget slack (drop_shrinkage.py); then the candidates around the boundary are tried,
   whatever the answers were. A candidate that is predicted to be slower than an engine already found, beyond the error of predictions, is
   not tried.
4. Where an engine must be fast enough (``largest_ratio``), the question of every step is another one: not whether an engine is inside the
   budget, but whether it is still too slow, so that more has to be quantized. The candidates are the same. What is bisected of a sequence
   is the part of it that is predicted to be about as fast as wanted; nothing is searched for where the baseline is fast enough itself.
5. A sequence of which two trials were slower than predicted, beyond the predictions' own errors, is dropped: its models are wrong there.
6. Where ``around`` is given, the search goes on from the best measured engines after the first sequence, and again in the end: a layer, a
   run of neighbours or a block is given back or taken, those first that win most time for the loss that they add, until steps no longer
   pay.
7. Trials are known by their fingerprint, so that candidate sequences share them. Three failures in a row end the search with what was
   found.
8. Each proposal says which ratios its engine's latency is compared with (deciding.py), so that it is timed no longer than that takes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from engine_builder.records.assignment import corrected_fingerprint
from engine_builder.records.corrections import ChangedLayers
from engine_builder.records.trial import FOLDED, Accuracy, Trial, mean_seconds
from engine_builder.search.candidate_sequence import ABOUT, CandidateSequence, contradiction, is_contradicted, opened
from engine_builder.search.deciding import Deciding, Proposal
from engine_builder.search.drop_shrinkage import shrunk_slack
from engine_builder.search.moves.steps_from import StepsFrom, steps_from
from engine_builder.search.search_space import BASELINE, WITHOUT_RESIDUAL_ADDS, QuantizedLayers

# names of the candidate sequence that is predicted first, and of that from models refitted to all trials
FRONTIER, REFINED = "frontier", "refine"
MOVES = "moves"  # the name of what lies one step from measured engines
GIVEN = "given"  # name of the user's own assignment, where that is none of the one-format engines
FASTEST = "fastest"  # name of the assignment that is predicted to be fastest, whatever its loss
NOTHING_LEFT = "nothing left to try"  # why a search without limits is over
GUESSES = 2  # at that: a second one where the first came out slower than predicted
FIRST_TRIALS = 2  # the baseline and the first one-format engine
MAX_FAILURES = 3  # in a row
DEFAULT_MAX_TRIALS = 40
TOLERANCE = 0.05  # relative error of a predicted latency, about
# a candidate sequence is bisected on while a candidate is predicted to be at most this much slower than the best engine so far
OPENING = 0.02
ADDS = 0.1  # that an engine without its quantized residual adds may be faster
WORTH_TRYING = 0.03  # over the baseline: a smaller predicted gain is within the error of predictions
AROUND = (-1, 1, 2)  # candidates tried around the boundary, relative to it
CONTRADICTED = 2  # predictions of a sequence, after which it is dropped
STEPS_AFTER = 1  # sequence, then once more after all: steps cost fewer trials, and find what later sequences must beat
MOST_MISSED = 4  # steps from measured engines that did not pay, in a row


class Search:
    """Proposes assignments and is told the trials. Not thread-safe; deterministic."""

    def __init__(
        self,
        one_format: Mapping[str, QuantizedLayers],
        sequences: Callable[[Sequence[Trial]], Iterator[CandidateSequence]],
        fingerprint: Callable[[QuantizedLayers], str],
        *,
        max_trials: int | None,
        max_seconds: float | None,
        seconds: Callable[[], float],
        view: Callable[[Sequence[Trial]], Callable[[Trial], Accuracy | None]],
        without_residual_adds: QuantizedLayers | None = None,
        last_resorts: Collection[str] = (),
        tries_folded: bool = False,
        given: QuantizedLayers | None = None,
        only_given: bool = False,
        largest_ratio: Callable[[float], float] | None = None,
        fastest: Callable[[Sequence[Trial]], CandidateSequence | None] = lambda trials: None,
        around: Callable[[Sequence[Trial], StepsFrom], CandidateSequence | None] | None = None,
        correct: Callable[[], ChangedLayers | None] = lambda: None,
    ) -> None:
        """Start.

        Args:
            one_format: The one-format engines by name, in the order in which they are tried.
            sequences: Called once with the list of trials, which goes on growing; yields the candidate sequences to bisect, in order.
            fingerprint: Name of an assignment by its content, without corrections.
            max_trials: Trials at the most, the first two included, which are made in any case.
            max_seconds: No trial is proposed that would end past this, if it took the mean of those so far; the first two always are.
            seconds: What the job's stages so far took, as recorded.
            without_residual_adds: The first one-format engine without its residual adds, where it has any.
            last_resorts: Names of one-format engines, slower and more accurate than others, that are tried only where the fastest of those
                misses the budget.
            tries_folded: Whether the float model with its constants folded is an engine of its own: it is tried right after the baseline.
            given: The user's own assignment, tried before the one-format engines.
            only_given: Whether nothing else than that is tried.
            largest_ratio: Given the baseline's median latency in milliseconds, returns the largest ratio to it that is fast enough; None
                where the fastest engine inside the budget is looked for.
            fastest: Told all trials, returns the assignment that is predicted to be fastest, whatever its loss, as the only candidate; None
                where nothing can be predicted. Asked only while the fastest engine keeps the budget.
            around: Told all trials, returns what lies one step from some of them, the best first, with models fitted to all; None where
                that is not known.
            correct: Measures the corrections that cost something, which every further engine has, and returns what they change; None where
                that is nothing, or they were measured before. Called only where the fastest engine misses the budget.
            view: Told the baseline's and the one-format engines' trials, returns which accuracy of a trial the search may look at.
        """
        self.trials: list[Trial] = []
        self._sequences = sequences
        self._uncorrected = fingerprint
        self._correct = correct
        self._changed: ChangedLayers | None = None  # by corrections that were measured after engines had been tried
        self._asked: dict[str, tuple[QuantizedLayers, str]] = {}  # by fingerprint, with what proposed it
        self.ended = "running"  # why the search is over, once it is
        self._max_trials = max(max_trials or DEFAULT_MAX_TRIALS, FIRST_TRIALS)
        self._max_seconds = max_seconds
        self._seconds = seconds
        self._view_of = view
        self._largest_ratio = largest_ratio
        self._tries_folded = tries_folded and not only_given
        self._given, self._only_given = given, only_given
        self._around = around
        self._fastest = fastest
        self._needed: float | None = None  # the largest ratio that is fast enough, once the baseline's latency is known
        self._view: Callable[[Trial], Accuracy | None] = lambda trial: None  # until the first trials are known
        self._last_resorts = last_resorts
        self._plan = self._steps(one_format, without_residual_adds or {})
        self._next: Proposal | None = next(self._plan)

    def fingerprint(self, quantized: QuantizedLayers) -> str:
        """Return the name of the engine that an assignment gives by now."""
        name = self._uncorrected(quantized)
        return corrected_fingerprint(name) if self._changed is not None and self._changed.are_in(quantized) else name

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
                ended = self._limit()  # again: what yields the candidate sequences may have taken the time that was left
                self._next = proposal if ended is None else None
            except StopIteration:
                ended = NOTHING_LEFT
        self.ended = ended or self.ended

    def _limit(self) -> str | None:
        """Return the limit that the trials have reached, if any."""
        failed = [trial.failure is not None for trial in self.trials[-MAX_FAILURES:]]
        if len(failed) == MAX_FAILURES and all(failed):
            return f"{MAX_FAILURES} trials in a row failed"
        # The folded model decides nothing of the others, and an engine without corrections is tried in the place of none.
        counted = sum(trial.order != FOLDED and trial.made_with is None for trial in self.trials)
        if counted >= self._max_trials:
            return f"the limit of {self._max_trials} trials was reached"
        if self._max_seconds is not None and counted >= FIRST_TRIALS:
            if self._seconds() >= self._max_seconds:
                return f"the limit of {self._max_seconds:g} seconds was reached"
            usual = mean_seconds(self.trials)
            if self._seconds() + usual > self._max_seconds:
                return f"the limit of {self._max_seconds:g} seconds leaves no time for another trial of about {usual:.3g} seconds"
        return None

    def _steps(self, one_format: Mapping[str, QuantizedLayers], without_residual_adds: QuantizedLayers) -> Generator[Proposal, Trial, None]:
        baseline = yield Proposal({}, BASELINE)
        known = {self.fingerprint({}): baseline}
        if self._largest_ratio is not None:
            self._needed = 0.0 if baseline.latency is None else self._largest_ratio(baseline.latency.median_ms)
            if self._needed >= 1.0:
                return
        if self._tries_folded:
            folded = yield Proposal({}, FOLDED, self._deciding())
            if self._needed is not None and folded.latency is not None and folded.latency.ratio <= self._needed:
                return  # nothing that is fast enough is more accurate
        if self._given is not None:
            order = next((name for name, quantized in one_format.items() if quantized == self._given), GIVEN)
            yield from self._try(self._given, order, known)
            self._view = self._view_of(self.trials)
        if self._only_given:
            yield from self._try_corrected(known)
        if self._only_given or not any(one_format.values()):
            return
        usual = {name: quantized for name, quantized in one_format.items() if name not in self._last_resorts} or one_format
        for name, quantized in usual.items():
            yield from self._try(quantized, name, known, *self._budget_bounds())
            self._view = self._view_of(self.trials)
        yield from self._try_corrected(known)
        for name, quantized in one_format.items():
            if name not in usual and not self._is_fastest_met():
                yield from self._try(quantized, name, known, *self._budget_bounds())
        quantized = next(iter(usual.values()))
        first = known.get(self.fingerprint(quantized), known[self._uncorrected(quantized)])
        if without_residual_adds and not self._is_met(first) and self._is_in_front(first, ADDS):
            yield from self._try(without_residual_adds, WITHOUT_RESIDUAL_ADDS, known)
        if (yield from self._quicken(known)):
            return
        if (yield from self._try_corrected(known)) and (yield from self._quicken(known)):
            return
        for place, sequence in enumerate(self._sequences(self.trials), start=1):
            yield from self._climb(sequence, known)
            if place == STEPS_AFTER:
                yield from self._step_on(known)
        yield from self._step_on(known)

    def _try_corrected(self, known: dict[str, Trial]) -> Generator[Proposal, Trial, bool]:
        """Have corrections measured where the fastest engine misses the budget, and try those engines with them that may win.

        Returns whether that made other engines.
        """
        if self._is_fastest_met() or (changed := self._correct()) is None:
            return False
        self._changed = changed
        again = [name for name, (quantized, _) in self._asked.items() if changed.are_in(quantized)]
        missed = [name for name in again if not self._keeps(known[name]) and known[name].failure is None]
        for name in again:
            known[name] = replace(known[name], made_with=changed.before)
            self.trials[known[name].index] = known[name]
        for name in sorted(missed, key=lambda name: 0.0 if (latency := known[name].latency) is None else latency.ratio):
            if self._is_in_front(known[name], OPENING):
                yield from self._try(*self._asked[name], known, *self._budget_bounds())
        return bool(again)

    def _is_in_front(self, trial: Trial, tolerance: float) -> bool:
        """Return whether an engine would be about the fastest that keeps the budget, if it kept it; True where that is not known."""
        return trial.latency is None or self._needed is not None or trial.latency.ratio <= self._best() * (1.0 + tolerance)

    def _quicken(self, known: dict[str, Trial]) -> Generator[Proposal, Trial, bool]:
        """Search for time alone while the fastest engine keeps the budget; return whether the budget decided nothing."""
        below = self._fastest_ratio()
        for _ in range(GUESSES):
            if not self._is_fastest_met():
                return False
            guess = self._fastest(self.trials)
            if guess is None or guess.ratios[-1] >= below or self.fingerprint(guess.rungs[-1]) in known:
                return True
            bounds = (guess.ratios[-1] * (1.0 + TOLERANCE), *self._budget_bounds())
            trial = yield from self._try(guess.rungs[-1], guess.name, known, *bounds)
            if trial.latency is not None and trial.latency.ratio <= guess.ratios[-1] * (1.0 + TOLERANCE):
                break
            below = min(self._fastest_ratio(), 1.0 - WORTH_TRYING)  # by now the baseline is to be beaten, too
        return self._is_fastest_met()

    def _quantized(self) -> list[Trial]:
        """Return the quantized engines that were built; those without later corrections only where they meet the budget."""
        built = [trial for trial in self.trials if trial.low_layers and trial.failure is None]
        return [trial for trial in built if trial.made_with is None or self._is_met(trial)]

    def _is_fastest_met(self) -> bool:
        """Return whether the fastest engine with quantized layers keeps the budget, or one that is not worth telling from it in time.

        Where none was timed, whether all of them do.
        """
        built = self._quantized()
        timed = [(trial.latency.ratio, trial) for trial in built if trial.latency is not None]
        if not timed:
            return bool(built) and all(self._keeps(trial) for trial in built)
        as_fast = min(ratio for ratio, _ in timed) * (1.0 if self._needed is not None else 1.0 + WORTH_TRYING)
        return any(self._keeps(trial) for ratio, trial in timed if ratio <= as_fast)

    def _keeps(self, trial: Trial) -> bool:
        """Return whether the budget is kept on the samples, and likely on all data."""
        return self._is_met(trial) and self._fits(trial)

    def _fastest_ratio(self) -> float:
        """Return the lowest ratio of an engine with quantized layers, 0 where none was timed."""
        return min((trial.latency.ratio for trial in self._quantized() if trial.latency is not None), default=0.0)

    def _climb(self, sequence: CandidateSequence, known: dict[str, Trial]) -> Generator[Proposal, Trial, None]:
        """Bisect a sequence for as long as a candidate that is still open may win, then try those around the boundary that may."""
        state, contradicted = opened(sequence, self._needed), 0
        while (candidate := state.next()) is not None and self._may_win(sequence, range(state.low + 1, state.high + 1), OPENING):
            trial = yield from self._try(sequence.rungs[candidate - 1], sequence.name, known, *contradiction(sequence, candidate))
            state = state.tell(candidate, met=self._fits(trial))
            contradicted += is_contradicted(sequence, candidate, trial)
            if contradicted >= CONTRADICTED:
                return
        for candidate in (state.low + offset for offset in AROUND):
            if 1 <= candidate <= len(sequence.rungs) and self._may_win(sequence, (candidate,), TOLERANCE):
                trial = yield from self._try(sequence.rungs[candidate - 1], sequence.name, known, *contradiction(sequence, candidate))
                contradicted += is_contradicted(sequence, candidate, trial)
                if contradicted >= CONTRADICTED:
                    return

    def _step_on(self, known: dict[str, Trial]) -> Generator[Proposal, Trial, None]:
        """Go on from the best measured engines for as long as steps pay; the models are fitted anew before each."""
        missed = 0
        while self._around is not None and self._needed is None and missed < MOST_MISSED:
            best, found = self._best(), self._around(self.trials, steps_from(self.trials, self._view))
            rung = next((rung for rung in found.rungs if self.fingerprint(rung) not in known), None) if found is not None else None
            if found is None or rung is None:
                return
            trial = yield from self._try(rung, found.name, known)
            is_faster = self._is_met(trial) and trial.latency is not None and trial.latency.ratio < best - trial.latency.ratio_error
            missed = 0 if is_faster else missed + 1

    def _best(self) -> float:
        """Return the ratio of the fastest engine that meets the budget, 1 where none is faster than the baseline."""
        return min((trial.latency.ratio for trial in self.trials if trial.latency is not None and self._is_met(trial)), default=1.0)

    def _may_win(self, sequence: CandidateSequence, candidates: Iterable[int], tolerance: float) -> bool:
        """Return whether one of the candidates is predicted to be about as fast as the fastest engine that meets the budget, or faster.

        Where an engine must be fast enough: whether one is predicted to be about that.
        """
        if self._needed is not None:
            return any(sequence.ratios[candidate - 1] <= self._needed * (1.0 + ABOUT) for candidate in candidates)
        return any(sequence.ratios[candidate - 1] <= self._best() * (1.0 + tolerance) for candidate in candidates)

    def _try(self, quantized: QuantizedLayers, order: str, known: dict[str, Trial], *bounds: float) -> Generator[Proposal, Trial, Trial]:
        """Return the trial of an assignment, proposed unless it is known; ``bounds`` are ratios that its own is compared with besides."""
        name = self.fingerprint(quantized)
        if name not in known:
            self._asked[name] = quantized, order
            known[name] = yield Proposal(quantized, order, self._deciding(*bounds))
        return known[name]

    def _deciding(self, *bounds: float) -> Deciding:
        """Return what the latency of the next engine is compared with."""
        return Deciding(bounds, self._best()) if self._needed is None else Deciding((*bounds, self._needed))

    def _budget_bounds(self) -> tuple[float, ...]:
        """Return the ratios around which ``_is_fastest_met`` has another answer."""
        fastest, best = self._fastest_ratio(), self._best()
        return (fastest * (1.0 + WORTH_TRYING), best / (1.0 + WORTH_TRYING)) if fastest > 0.0 and self._needed is None else ()

    def _is_met(self, trial: Trial) -> bool:
        """Return whether the budget is met on the samples that the search may look at; where it must be fast enough, if it is too slow."""
        if self._needed is not None:
            return trial.latency is not None and trial.latency.ratio > self._needed
        accuracy = self._view(trial)
        return accuracy is not None and accuracy.met

    def _fits(self, trial: Trial) -> bool:
        """Return whether the budget is likely to be met, given all trials."""
        if self._needed is not None:
            return self._is_met(trial)
        accuracy = self._view(trial)
        seen = [item for other in self.trials if (item := self._view(other)) is not None]
        return accuracy is not None and shrunk_slack(accuracy, seen) >= 0.0
