"""Whole jobs on models that count samples in unusual places: every sample is judged, and the engine is called as the model was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnxruntime
import pytest

from calibration.accuracy.metrics import Metric
from calibration.accuracy.scores import score
from engine_builder.evaluation.measurement import search_half
from tests.axes_models import (
    CASES,
    SAMPLES,
    AxesCase,
    frames_first,
    frames_first_of_four,
    normalized_over_the_batch,
    recurrent_state,
    tokens_flattened,
)
from tests.driver import Array, Finished, run_job
from tests.long_cases import mostly_long

LENIENT = {"accuracy": {"min_relative": 0.5}}


@pytest.mark.parametrize("maker", mostly_long(CASES, quick=3), ids=lambda maker: maker.__name__)
def test_an_engine_is_as_good_as_reported_sample_by_sample(maker: Callable[[], AxesCase], tmp_path: Path) -> None:
    case = maker()
    # The four samples of a fixed call share the range of a dynamic layer, which ``alone`` cannot show.
    config = {**LENIENT, "precisions": ["fp32", "int8"]} if maker is frames_first_of_four else LENIENT
    finished = run_job(tmp_path, case.model, case.arrays, case.arrays, config)

    assert finished.result["outcome"] == "improved"
    assert cast(Mapping[str, int], finished.chosen["precisions"]).keys() & {"int8", "int8_dynamic"}
    assert case.words in finished.notes
    assert [value.name for value in onnx.load(finished.engine).graph.input] == [value.name for value in case.model.graph.input]
    assert accuracy_one_by_one(finished, case) == pytest.approx(cast(float, finished.chosen["accuracy"]), abs=1e-6)


@pytest.mark.parametrize(
    "maker", mostly_long([frames_first, recurrent_state, normalized_over_the_batch, tokens_flattened]), ids=lambda maker: maker.__name__
)
def test_every_correction_works_on_whole_batches(maker: Callable[[], AxesCase], tmp_path: Path) -> None:
    case = maker()
    config = {**LENIENT, "batch_size": 4, "calibration": {"method": "best", "second_order": ["int8"]}}
    finished = run_job(tmp_path, case.model, case.arrays, config=config)
    assert finished.result["outcome"] == "improved"
    assert cast(float, finished.chosen["accuracy"]) > 0.9
    assert ("4 in a call, always the same ones together" in finished.notes) is (maker is normalized_over_the_batch)


def accuracy_one_by_one(finished: Finished, case: AxesCase) -> float:
    """Score the engine against the user's model in plain onnxruntime, one sample a call, on the samples of the verdict."""
    kinds = cast(Sequence[str], cast(Mapping[str, object], finished.report["data"])["outputs"])
    metric = Metric(str(finished.verdict["metric"]))
    read = [index for index, kind in enumerate(kinds) if (kind in ("logits", "labels") if metric is Metric.AGREEMENT else kind != "ignore")]
    outputs, reference = (alone(model, case) for model in (finished.engine.read_bytes(), finished.model_bytes))
    judged = [finished.judged[case.model.graph.output[index].name] for index in read]
    ours, theirs = (
        [_samples_first(arrays[index], finished.shapes[place]) for place, index in enumerate(read)] for arrays in (outputs, reference)
    )
    scores = score(metric, ours, theirs, None, judged=judged, inputs=case.arrays)
    used = np.arange(SAMPLES)
    if finished.verdict["selection"] == "held_out":
        used = np.setdiff1d(used, search_half(SAMPLES, 0))
    assert len(used) == finished.verdict["n"]
    return float(np.mean(scores[used]))


def _samples_first(arrays: Array, shape: tuple[int, ...]) -> Array:
    """Return the outputs of single calls in the form in which the job compares them; of several copies in a call, the first."""
    form = (len(arrays), *shape[1:])
    return arrays.reshape(form) if arrays.size == np.prod(form) else arrays[:, :, 0]


def alone(model: bytes, case: AxesCase) -> list[Array]:
    """Return what each sample gives alone, (samples, ...) for each output; of several copies in a call, the first."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    calls = [session.run(None, case.feed(case.arrays, index)) for index in range(SAMPLES)]
    return [np.stack(parts) for parts in zip(*calls, strict=True)]
