"""What the search may ask for next, found by asking a copy of it: the search is pure, so a copy that is told the same is where it is.

The copy is told a supposed trial in the place of the one that runs: an engine inside the budget, or one outside. What it proposes then may
be asked for next, and so on. What the search asked others for (sequences, steps, corrections) is recorded and given to copies again; where
a copy would need something that was not asked for yet, nobody knows what follows.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from engine_builder.records.assignment import folded_fingerprint
from engine_builder.records.corrections import ChangedLayers
from engine_builder.records.trial import FOLDED, Accuracy, Latency, Trial
from engine_builder.search.candidate_sequence import CandidateSequence
from engine_builder.search.deciding import Proposal
from engine_builder.search.moves.steps_from import StepsFrom
from engine_builder.search.search import Search

T = TypeVar("T")
View = Callable[[Trial], Accuracy | None]


class NotKnownYet(Exception):  # noqa: N818  # no error: the answer is to come
    """Nobody has asked for this before."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What a search asks others for; see ``Search``."""

    sequences: Callable[[Sequence[Trial]], Iterator[CandidateSequence]]
    fastest: Callable[[Sequence[Trial]], CandidateSequence | None]
    around: Callable[[Sequence[Trial], StepsFrom], CandidateSequence | None]
    correct: Callable[[], ChangedLayers | None]


@dataclass(slots=True)
class Recorded:
    """Sources whose answers are kept. Not thread-safe."""

    of: Sources
    _sequences: list[CandidateSequence] = field(default_factory=list)
    _are_all: bool = False  # whether there are no more sequences
    _fastest: list[CandidateSequence | None] = field(default_factory=list)
    _around: list[CandidateSequence | None] = field(default_factory=list)
    _corrected: list[ChangedLayers | None] = field(default_factory=list)

    def recording(self) -> Sources:
        """Return the sources, for the search itself."""

        def sequences(trials: Sequence[Trial]) -> Iterator[CandidateSequence]:
            for sequence in self.of.sequences(trials):
                self._sequences.append(sequence)
                yield sequence
            self._are_all = True

        return Sources(
            sequences,
            lambda trials: _kept(self.of.fastest(trials), self._fastest),
            lambda trials, start: _kept(self.of.around(trials, start), self._around),
            lambda: _kept(self.of.correct(), self._corrected),
        )

    def replaying(self) -> Sources:
        """Return sources that give the same answers from the first on, and raise ``NotKnownYet`` after the last.

        Steps from measured engines are guessed to stay those of the last answer: one more trial changes their models little.
        """
        fastest, corrected = iter(list(self._fastest)), iter(list(self._corrected))
        around = itertools.chain(self._around, itertools.repeat(self._around[-1]) if self._around else ())

        def sequences(trials: Sequence[Trial]) -> Iterator[CandidateSequence]:
            yield from list(self._sequences)
            if not self._are_all:
                raise NotKnownYet

        return Sources(sequences, lambda trials: _next(fastest), lambda trials, start: _next(around), lambda: _next(corrected))

    def ratio(self, proposal: Proposal) -> float | None:
        """Return the latency that was last predicted for a proposal, as a ratio to the baseline's; None where it was not."""
        known = [one for one in (*self._sequences, *self._fastest, *self._around) if one is not None]
        for sequence in reversed(known):
            for rung, ratio in zip(sequence.rungs, sequence.ratios, strict=True):
                if ratio > 0.0 and rung == proposal.quantized:
                    return ratio
        return None


class Foresight:
    """Says what a search may propose next. Asked again after every trial; not thread-safe."""

    def __init__(
        self, copied: Callable[[Sources, Callable[[View], View]], Search], recorded: Recorded, needed: Callable[[Trial], float | None]
    ) -> None:
        """Know of no trial yet.

        Args:
            copied: Makes a search like the one that runs, without limits, from sources and what becomes of its view of trials.
            recorded: What that one asked others for.
            needed: From the baseline's trial, the largest ratio of latencies that is fast enough; None where the budget decides.
        """
        self._copied, self._recorded, self._needed = copied, recorded, needed
        self._told: list[Trial] = []

    def tell(self, trial: Trial) -> None:
        """Take in a trial as the search was told of it."""
        self._told.append(trial)

    def proposals(self) -> Iterator[Proposal]:
        """Yield what may be proposed after the trial that runs now, each once: first what may be next, then what may follow that."""
        paths, seen = deque[tuple[bool, ...]]([(True,), (False,)]), list[Proposal]()
        while paths:
            path = paths.popleft()
            found = self._after(path)
            if found is None:
                continue
            if not any(found.quantized == one.quantized for one in seen):
                seen.append(found)
                yield found
            if len(path) < DEPTH:
                paths.extend((*path, is_inside) for is_inside in (True, False))

    def _after(self, path: Sequence[bool]) -> Proposal | None:
        """Return what is proposed after the trial that runs now and those after it turn out so."""
        supposed: set[int] = set()

        def seen(real: View) -> View:
            return lambda trial: trial.on_all if trial.index in supposed else real(trial)

        try:
            search = self._copied(self._recorded.replaying(), seen)
            for trial in self._told:
                proposal = search.next()
                if proposal is None or _fingerprint(search, proposal) != trial.fingerprint:
                    return None  # this is not where the search is
                search.tell(trial)
            for is_inside in path:
                proposal = search.next()
                if proposal is None:
                    return None
                supposed.add(len(search.trials))
                search.tell(self._supposed(proposal, search, is_inside=is_inside))
        except NotKnownYet:
            return None
        return search.next()

    def _supposed(self, proposal: Proposal, search: Search, *, is_inside: bool) -> Trial:
        """Return a trial of a proposal: about as fast as predicted, and clearly inside the budget or clearly not.

        Where an engine must be fast enough, the latency decides instead: ``is_inside`` is then that it is too slow still.
        """
        known = [trial.latency.ratio for trial in search.trials if trial.latency is not None and trial.low_layers]
        ratio = 1.0 if not proposal.quantized else self._recorded.ratio(proposal) or min(known, default=1.0) * _USUAL_GAIN
        needed = self._needed(search.trials[0]) if search.trials else None
        if needed is not None:
            ratio = max(ratio, needed * (1.0 + _CLEARLY)) if is_inside else min(ratio, needed * (1.0 - _CLEARLY))
        baseline_ms = next((trial.latency.baseline_median_ms for trial in search.trials if trial.latency is not None), 1.0)
        latency = Latency(ratio * baseline_ms, ratio * baseline_ms, 0.0, 1, baseline_ms, 0.0, ratio)
        slack = _SLACK if is_inside else -_SLACK
        samples = next((trial.on_all.samples for trial in search.trials if trial.on_all is not None), _SAMPLES)
        accuracy = Accuracy(0.0, 0.0, slack, 0.0, False, samples, 0.0 if is_inside else 1.0, slack, has_margins=True)
        fingerprint = _fingerprint(search, proposal)
        index, layers = len(search.trials), dict(proposal.quantized)
        trial = Trial(index, fingerprint, layers, proposal.order, len(layers), None, None, None, latency, None, None, 0.0, None)
        return replace(trial, on_all=accuracy, on_search=accuracy, loss=0.0)


def _fingerprint(search: Search, proposal: Proposal) -> str:
    found = search.fingerprint(proposal.quantized)
    return folded_fingerprint(found) if proposal.order == FOLDED else found


def _kept(answer: T, answers: list[T]) -> T:
    answers.append(answer)
    return answer


def _next(answers: Iterator[T]) -> T:
    for answer in itertools.islice(answers, 1):
        return answer
    raise NotKnownYet


DEPTH = 3  # trials ahead
_USUAL_GAIN = 0.95
_CLEARLY = 0.001
_SLACK = 0.5
_SAMPLES = 1000  # where no trial has said how many there are
