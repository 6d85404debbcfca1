"""Which validation samples the search may look at, and which accuracy of a trial it therefore sees.

Part of the pipeline and like it deterministic: the same trials give the same answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from calibration.accuracy.metrics import Metric
from calibration.accuracy.verdict import Selection
from engine_builder.config.config import Config
from engine_builder.records.trial import FOLDED, Accuracy, Trial
from engine_builder.search.confidence import certain, keeps_some_apart


def selection_of(trials: Sequence[Trial], config: Config, metric: Metric) -> Selection:
    """Return whether half of the validation samples can decide on the budget, for an engine that flips as many as the first trials."""
    flips = [trial.on_all for trial in [one for one in trials if one.order != FOLDED][:2] if trial.on_all is not None]
    if not flips:
        return Selection.SHARED
    binary = all(accuracy.binary for accuracy in flips)
    apart = keeps_some_apart(flips[-1].samples, flips[-1].flips, config.accuracy, metric, is_binary=binary)
    return Selection.HELD_OUT if apart else Selection.SHARED


def engines_tried(trials: Sequence[Trial]) -> int:
    """Return how many engines could be chosen by the samples that the search sees, at least 1."""
    return max(1, sum(1 for trial in trials if trial.low_layers and trial.on_all is not None))


def seen_by(selection: Selection, config: Config, metric: Metric, trials: Sequence[Trial]) -> Callable[[Trial], Accuracy | None]:
    """Return which accuracy of a trial the search looks at: never the samples that are kept for the verdict.

    Args:
        selection: Whether any are.
        config: The job's settings.
        metric: What the scores are.
        trials: All trials so far; the list may grow.
    """

    def view(trial: Trial) -> Accuracy | None:
        found = trial.on_search if selection is Selection.HELD_OUT else trial.on_all
        if found is None or config.accuracy.confidence is None:
            return found
        chosen_from = engines_tried(trials) if selection is Selection.SHARED else 1
        return certain(found, config.accuracy.budget, metric, config.accuracy.confidence, chosen_from=chosen_from)

    return view
