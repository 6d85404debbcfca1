"""Candidate sequences that the models of loss and latency predict, then those of the models fitted again to all trials.

Where predictions come with errors, the model of latency learns from every trial: then each sequence is predicted anew before it is tried.

Where nothing could be timed, or nothing can be predicted, the sequences along the rankings of the layers take their place: each may win.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine_builder.records.trial import Trial
from engine_builder.search.candidate_sequence import CandidateSequence
from engine_builder.search.search import REFINED
from engine_builder.search.strategies.strategy import Evidence


class PredictedSequences:
    """The strategy that predicts, measures, and predicts once more."""

    def propose(self, evidence: Evidence, trials: Sequence[Trial]) -> Iterator[CandidateSequence]:
        """Yield the predicted sequences, then the refined one; the rankings' where there is no prediction."""
        is_timed = trials[0].latency is not None and any(trial.latency is not None for trial in trials[1:])
        predicted = evidence.predicted(trials) if is_timed else None
        if predicted is None:
            yield from evidence.rankings()
            return
        latest, told = {sequence.name: sequence for sequence in predicted}, len(trials)
        for name in [sequence.name for sequence in predicted]:
            if latest[name].errors and len(trials) > told:
                latest, told = latest | _by_name(evidence.predicted(trials)), len(trials)
            yield latest[name]
        if REFINED not in latest or len(trials) > told:
            latest = _by_name(evidence.predicted(trials))
        if REFINED in latest:
            yield latest[REFINED]


def _by_name(predicted: Sequence[CandidateSequence] | None) -> dict[str, CandidateSequence]:
    return {sequence.name: sequence for sequence in predicted or ()}
