"""What the search asks of its models: stages predict it, and measure what they need first.

Part of the pipeline and like it deterministic: it asks for stages and handles their requests and results.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

from engine_builder.errors import EngineError
from engine_builder.pipeline import stage_table as table
from engine_builder.pipeline.observer import Observer
from engine_builder.pipeline.on_demand.analysis import Analysis
from engine_builder.pipeline.on_demand.corrections import Corrections
from engine_builder.pipeline.progress import Progress
from engine_builder.pipeline.stage import RunStage, run
from engine_builder.records.trial import Trial
from engine_builder.search.candidate_sequence import CandidateSequence
from engine_builder.search.moves.steps_from import StepsFrom
from engine_builder.search.rankings import prefixes
from engine_builder.search.strategies.registry import default_strategy
from engine_builder.search.strategies.strategy import Evidence
from engine_builder.stage_io.engines import PredictRequest, PredictResult
from engine_builder.stage_io.measuring import RankResult


class Predictions:
    """Asks for predictions, each under a name of its own, and keeps them. Not thread-safe."""

    def __init__(
        self,
        corrections: Corrections,
        analysis: Analysis,
        driver: RunStage,
        observer: Observer,
        progress: Progress,
        seconds_left: Callable[[], float | None] = lambda: None,
    ) -> None:
        """Predict nothing yet.

        Args:
            corrections: Of the job.
            analysis: Is run when losses are needed.
            driver: Runs a stage.
            observer: Is told when the search begins to be refined.
            progress: Of the search.
            seconds_left: Of the search; None where it has no limit.
        """
        self._corrections, self._analysis, self._seconds_left = corrections, analysis, seconds_left
        self._driver, self._observer, self._progress = driver, observer, progress
        self._asked = itertools.count()
        self.made: tuple[PredictResult, ...] = ()

    def fastest(self, trials: Sequence[Trial]) -> CandidateSequence | None:
        """Return the assignment that is predicted to be fastest, whatever its loss, as the only candidate; no analysis is needed for it.

        Args:
            trials: All so far.
        """
        if not _is_timed(trials):
            return None
        found = self._predicted(trials, f"predict/fastest/{next(self._asked)}", ranked=None, refined=False)
        return next((sequence for sequence in found if sequence.rungs), None)

    def sequences(self, trials: Sequence[Trial]) -> Iterator[CandidateSequence]:
        """Yield what the strategy proposes, after the analysis; nothing where that failed.

        Args:
            trials: All so far; the list grows while the search runs.
        """
        analysed = self._analysis.measured()
        self._observer.entered("search", self._progress.at)
        if analysed is None:
            return
        ranked = analysed.ranked
        times = itertools.count()

        def predicted(trials: Sequence[Trial]) -> tuple[CandidateSequence, ...] | None:
            time = next(times)
            if time:
                self._observer.entered("refine", self._progress.at)
            key = f"predict/{('search', 'refine')[time] if time < 2 else f'refine/{time}'}"
            return self._predicted(trials, key, ranked=ranked, refined=time > 0) or None

        evidence = Evidence(lambda: _ranked(ranked), lambda trials: predicted(trials) if _is_timed(trials) else None)
        yield from default_strategy().propose(evidence, trials)

    def around(self, trials: Sequence[Trial], start: StepsFrom) -> CandidateSequence | None:
        """Return what lies one step from measured engines; None where the model of latency does not know borders.

        Args:
            trials: All so far.
            start: Which engines, and how far.
        """
        analysed = self._analysis.measured()
        if analysed is None or not self.made or self.made[-1].time_model.fitted is None:
            return None
        self._observer.entered("refine", self._progress.at)
        key = f"predict/moves/{next(self._asked)}"
        found = self._predicted(trials, key, ranked=analysed.ranked, refined=True, around=start)
        return found[0] if found else None

    def _predicted(
        self, trials: Sequence[Trial], key: str, *, ranked: RankResult | None, refined: bool, around: StepsFrom | None = None
    ) -> tuple[CandidateSequence, ...]:
        """Return what the stage ``predict`` gives; nothing where it fails, since it builds and runs engines too."""
        kernels = self.made[0].kernels_ms if self.made else None
        probe = next((one.probe for one in self.made if one.probe is not None), None)
        request = PredictRequest(self._corrections.job, ranked, tuple(trials), kernels, refined, probe, around, self._seconds_left())
        at = self._progress.at
        try:
            result = run(self._driver, table.PREDICT, request, key=key, span=(at, at))
        except EngineError:
            return ()
        self.made = (*self.made, result)
        return tuple(CandidateSequence(one.name, one.rungs, one.ratios, one.errors) for one in result.ladders)


def _is_timed(trials: Sequence[Trial]) -> bool:
    return trials[0].latency is not None and any(trial.latency is not None for trial in trials[1:] if trial.low_layers)


def _ranked(ranked: RankResult) -> Iterator[CandidateSequence]:
    """Yield the prefixes of every order where there is nothing to predict latency from: each may win."""
    for name, order in ranked.rankings.items():
        candidates = prefixes(order)
        yield CandidateSequence(name, candidates, (0.0,) * len(candidates))
