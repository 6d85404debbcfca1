"""What a search strategy is: it proposes candidate sequences, from what the job can tell and from the trials so far.

The search (``search.py``) tries the baseline and the one-format engines first, then asks the strategy once, and bisects over each sequence
that it yields; which candidate of a sequence is built next, and when to stop, is not the strategy's affair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine_builder.records.trial import Trial
from engine_builder.search.candidate_sequence import CandidateSequence


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a job can tell of engines that it has not built. The stages of the job answer, so an answer may take minutes."""

    # The candidate sequence along each ranking of the layers, without any prediction of latency.
    rankings: Callable[[], Iterator[CandidateSequence]]
    # The sequences that the models of loss and latency, fitted to these trials, predict to be best; None where they cannot be fitted.
    # The first call gives the sequence ``search.FRONTIER`` and those along the rankings, each later one ``search.REFINED``; where
    # predictions have errors (``CandidateSequence.errors``), so that they are worth asking for again, those along the rankings too.
    predicted: Callable[[Sequence[Trial]], tuple[CandidateSequence, ...] | None]


class Strategy(Protocol):
    """Proposes candidate sequences. Deterministic: the same evidence and the same trials give the same sequences."""

    def propose(self, evidence: Evidence, trials: Sequence[Trial]) -> Iterator[CandidateSequence]:
        """Yield candidate sequences, in the order in which they are tried.

        Where every one-format engine keeps the budget, only time is left to search for: of ``search.FRONTIER`` and ``search.REFINED`` the
        fastest candidate is then tried, and other sequences only where no engine could be timed.

        Args:
            evidence: What may be asked.
            trials: The baseline's and the one-format engines'; the sequence goes on growing while the search runs, so that it holds all
                trials whenever the next candidate sequence is asked for.
        """
