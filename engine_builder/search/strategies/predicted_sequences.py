"""Candidate sequences that the models of loss and latency predict, then those of the models fitted again to all trials.

Where nothing could be timed, or nothing can be predicted, the sequences along the rankings of the layers take their place: each may win.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine_builder.records.trial import Trial
from engine_builder.search.search import CandidateSequence
from engine_builder.search.strategies.strategy import Evidence


class PredictedSequences:
    """The strategy that predicts, measures, and predicts once more."""

    def propose(self, evidence: Evidence, trials: Sequence[Trial]) -> Iterator[CandidateSequence]:
        """Yield the predicted sequences, then the refined ones; the rankings' where there is no prediction."""
        is_timed = trials[0].latency is not None and any(trial.latency is not None for trial in trials[1:])
        predicted = evidence.predicted(trials) if is_timed else None
        if predicted is None:
            yield from evidence.rankings()
            return
        yield from predicted
        yield from evidence.predicted(trials) or ()
