"""Whole jobs on decoders: one token a call, with a cache that grows, judged over whole texts."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
from onnx import numpy_helper

from calibration.data.dataset import load_saved
from calibration.errors import InvalidCalibrationSetError
from engine_builder.errors import UnsupportedModelError
from tests.decoder_models import CACHES, HEADS, SIZE, decoder, logits_of, texts
from tests.driver import Array, Json, inspected, inspection_of, ranged, run_job, submitted

COUNT, STEPS = 16, 24
LENIENT = {"accuracy": {"metric": "agreement", "min_relative": 0.5}, "calibration": {"repair": False}}


def test_a_decoder_is_judged_over_whole_texts_with_its_own_cache(tmp_path: Path) -> None:
    lengths = np.arange(COUNT) % 8 + STEPS - 7
    validation = {"input_ids": texts(COUNT, STEPS, seed=1), "lengths": lengths}
    finished = run_job(tmp_path, decoder(), {"input_ids": texts(COUNT, STEPS)}, validation, LENIENT)

    assert finished.result["outcome"] == "improved"
    assert finished.verdict["n"] == COUNT
    shares = []
    for text, length in zip(validation["input_ids"], lengths, strict=True):
        truth, answer = (logits_of(model, text[:length].tolist()) for model in (finished.model_bytes, finished.engine))
        shares.append(float((truth.argmax(axis=-1) == answer.argmax(axis=-1)).mean()))
    assert 0.5 < float(np.mean(shares)) < 1.0  # else it could be any engine
    assert cast(float, finished.chosen["accuracy"]) == pytest.approx(float(np.mean(shares)), abs=1e-9)
    assert "output 'present.0.key' is the next step's 'past_key_values.0.key'" in finished.notes
    assert f"latencies are of one step with {STEPS // 2} others in the cache" in finished.notes
    assert finished.result["warnings"] == []


def test_a_budget_may_be_on_the_distribution_of_the_next_token(tmp_path: Path) -> None:
    validation = {"input_ids": texts(COUNT, STEPS, seed=1)}
    config = {"accuracy": {"max_kl": 0.1}, "calibration": {"repair": False}}
    finished = run_job(tmp_path, decoder(), {"input_ids": texts(COUNT, STEPS)}, validation, config)

    assert finished.result["outcome"] == "improved"
    assert finished.verdict["metric"] == "kl"
    divergences = []
    for text in validation["input_ids"]:
        truth, answer = (logits_of(model, text.tolist()).astype(np.float64) for model in (finished.model_bytes, finished.engine))
        log_p, log_q = (rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True)) for rows in (truth, answer))
        divergences.append(float((np.exp(log_p) * (log_p - log_q)).sum(axis=-1).mean()))
    assert 0.0 < float(np.mean(divergences)) < 0.1
    assert cast(float, finished.chosen["accuracy"]) == pytest.approx(float(np.mean(divergences)), rel=1e-4)


def test_ranges_and_probes_see_tokens_behind_a_cache_that_the_float_model_filled(tmp_path: Path) -> None:
    given = texts(COUNT, STEPS)
    driver, job = ranged(tmp_path, decoder(), {"input_ids": given}, {"input_ids": texts(COUNT, STEPS, seed=1)}, LENIENT)
    found = load_saved(driver.workspace.path(job.calibrated.calibration))

    half = STEPS // 2
    assert found.inputs["past_key_values.0.key"].shape == (COUNT * half, HEADS, half, SIZE)
    assert found.inputs["attention_mask"].shape == (COUNT * half, half + 1)
    assert (found.inputs["position_ids"] == half).all()
    keys = found.inputs["past_key_values.0.key"]
    expected = [cache_of(text[at : at + half]) for text in given for at in range(half)]  # stretches begin anywhere
    np.testing.assert_allclose(np.sort(keys, axis=0), np.sort(expected, axis=0), atol=1e-4)  # sums of 16 float32


def cache_of(tokens: Array) -> Array:
    """Return the keys of some tokens from the start of a text on, (HEADS, tokens, SIZE)."""
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in decoder().graph.initializer}
    h = weights["embedding"][tokens] + weights["position_table"][np.arange(len(tokens))]
    return np.asarray((h @ weights["wk"]).reshape(len(tokens), HEADS, SIZE).transpose(1, 0, 2))


@pytest.mark.parametrize(("has_mask", "has_positions"), [(False, False), (True, False), (False, True)])
def test_masks_and_positions_need_not_be_there(has_mask: bool, has_positions: bool, tmp_path: Path) -> None:
    model = decoder(has_mask=has_mask, has_positions=has_positions)
    driver, job = ranged(tmp_path, model, {"input_ids": texts(COUNT, STEPS)}, None, LENIENT)
    loop = inspection_of(driver, job).loop
    assert loop is not None
    assert loop.caches.axes == dict.fromkeys(CACHES.values(), 2)
    assert set(loop.caches.followers) == {name for name, has in (("attention_mask", has_mask), ("position_ids", has_positions)) if has}


def test_labels_may_be_the_next_tokens(tmp_path: Path) -> None:
    given = texts(COUNT, STEPS + 1)
    arrays = {"input_ids": given[:, :-1], "labels": given[:, 1:]}
    driver, job = ranged(tmp_path, decoder(), arrays, arrays, {"accuracy": {"allow_chance": True}})  # its weights are random
    found = inspection_of(driver, job)
    assert found.reference.metric == "top1"
    scores = driver.workspace.read_scores(found.reference.scores)
    truth = [logits_of(decoder().SerializeToString(), text[:-1].tolist()).argmax(axis=-1) == text[1:] for text in given]
    assert scores.tolist() == pytest.approx([float(one.mean()) for one in truth])


@pytest.mark.parametrize(
    ("arrays", "config", "error", "words"),
    [
        (
            {"attention_mask": np.ones((COUNT, STEPS), dtype=np.int64)},
            {},
            InvalidCalibrationSetError,
            "the mask has another length at each step",
        ),
        ({"lengths": np.ones(COUNT, dtype=np.int64)}, {}, InvalidCalibrationSetError, "so that a step has a cache"),
        ({}, {"target": "tensorrt-rtx", "gpu": "RTX 4090"}, UnsupportedModelError, "grows from step to step"),
    ],
)
def test_what_cannot_be_run_is_refused(arrays: dict[str, Array], config: Json, error: type[Exception], words: str, tmp_path: Path) -> None:
    driver, job = submitted(tmp_path, decoder(), {"input_ids": texts(COUNT, STEPS), **arrays}, config=config)
    with pytest.raises(error, match=words):
        inspected(driver, job)
