"""A search strategy of somebody else's: a module and a row, and a job tries what it proposes."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from tests.driver import run_job, trials_of
from tests.model_text import cnn, samples_for
from tests.seams.extended_copy import call, extended_copy

STRATEGY = '''"""Every layer by itself: engines of one quantized layer each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine_builder.records.trial import Trial
from engine_builder.search.candidate_sequence import CandidateSequence
from engine_builder.search.strategies.strategy import Evidence


class OneLayerEach:
    """Takes the all-INT8 engine apart."""

    def propose(self, evidence: Evidence, trials: Sequence[Trial]) -> Iterator[CandidateSequence]:
        """Yield a sequence of one candidate for each layer of the first one-format engine."""
        for layer, precision in trials[1].precisions.items():
            yield CandidateSequence(f"only {layer}", ({layer: precision},), (0.0,))
'''
ROWS = {
    "from engine_builder.search.strategies.predicted": "from engine_builder.search.strategies.one_layer_each import OneLayerEach\n",
    '        "predicted_sequences": ': '        "one_layer_each": OneLayerEach(),\n',
}
TIGHT = {"accuracy": {"metric": "cosine", "min_relative": 1.0}}  # that no engine of integers keeps, so that there is something to search


def searched_job(folder: Path) -> dict[str, object]:
    """Return what a job tried, and which stages ran."""
    job = run_job(folder / "job", cnn(), validation=samples_for(cnn(), 40, seed=1), config=TIGHT)
    trials = [(trial.order, sorted(trial.precisions)) for trial in trials_of(job)]
    return {"trials": trials, "stages": job.driver.calls}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("strategy")
    new, table = (f"engine_builder/search/strategies/{name}.py" for name in ("one_layer_each", "registry"))
    return cast(dict[str, object], call(extended_copy(folder / "copy", new, STRATEGY, table, ROWS), searched_job, folder / "work"))


@pytest.mark.long
def test_a_job_tries_what_the_new_strategy_proposes(found: dict[str, object]) -> None:
    trials = [(order, tuple(layers)) for order, layers in cast(list[tuple[str, list[str]]], found["trials"])]
    layers = next(layers for order, layers in trials if order == "all_low")
    assert len(layers) > 1
    proposed = [(order, names) for order, names in trials if order not in ("baseline", "all_low", "products")]
    assert sorted(proposed) == [(f"only {layer}", (layer,)) for layer in layers]


@pytest.mark.long
def test_what_the_new_strategy_does_not_ask_for_is_never_predicted(found: dict[str, object]) -> None:
    stages = cast(list[str], found["stages"])
    assert [name for name in stages if name.startswith("forecast")] == []
    assert any(name.startswith("trial/") for name in stages)
