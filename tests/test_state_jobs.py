"""Whole jobs on models with a state: engines are run in closed loop with their own state, and judged over the whole run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest

from calibration.data.dataset import load_saved
from calibration.errors import InvalidCalibrationSetError, InvalidConfigError
from engine_builder.records.inspection import Inspection
from tests.driver import Array, Finished, Json, inspected, inspection_of, ranged, run_job, submitted
from tests.model_text import model_from_text
from tests.state_models import (
    HIDDEN,
    baked_batch,
    closed_loop_outputs,
    conv_stream,
    gru_detector,
    lstm_step,
    single_steps,
    slow_integrator,
    speech_detector,
    walks,
)

LENIENT = {"accuracy": {"min_relative": 0.5}}
COUNT, STEPS = 12, 15
START = np.zeros((1, HIDDEN), dtype=np.float32)


def agreement_of_runs(finished: Finished, x: Array, lengths: Array) -> float:
    """Return the mean share of steps of a sequence whose class is the float model's, measured from outside."""
    states, start = {"hn": "h0", "cn": "c0"}, dict.fromkeys(("h0", "c0"), START[None])
    shares = []
    for sequence, length in zip(x, lengths, strict=True):
        steps = {"x": sequence[:length, None]}
        truth, answer = (closed_loop_outputs(model, steps, states, start)[0] for model in (finished.model_bytes, finished.engine))
        shares.append(float((truth.argmax(axis=-1) == answer.argmax(axis=-1)).mean()))
    return float(np.mean(shares))


def test_an_engine_is_as_good_over_whole_runs_as_reported(tmp_path: Path) -> None:
    count = 4 * COUNT  # enough for steps whose class changes: then all sequences count, in the search and in the verdict
    x, lengths = walks(count, STEPS, 16, seed=1), np.arange(count) % STEPS + 1
    arrays = {"x": x, "lengths": lengths}
    lossy = {**LENIENT, "calibration": {"repair": False}}
    finished = run_job(tmp_path, lstm_step(), {"x": walks(COUNT, STEPS, 16)}, arrays, lossy)

    assert finished.result["outcome"] == "improved"
    assert finished.verdict["n"] == count
    assert cast(float, finished.chosen["accuracy"]) == pytest.approx(agreement_of_runs(finished, x, lengths), abs=1e-9)  # whole shares
    assert "output 'hn' is the next step's 'h0', output 'cn' is the next step's 'c0'" in finished.notes
    assert f"{count} validation sequences of 1 to {STEPS} steps are run in closed loop" in finished.notes
    assert "no budget covers it" not in finished.notes
    assert finished.result["warnings"] == []


def test_a_score_in_closed_loop_counts_by_the_decisions_of_all_steps(tmp_path: Path) -> None:
    x = walks(COUNT, STEPS, 16, seed=1)
    finished = run_job(tmp_path, gru_detector(), {"x": walks(COUNT, STEPS, 16)}, {"x": x}, LENIENT)

    truth, answers = (runs_of(model, x) for model in (finished.model_bytes, finished.engine))
    closeness = np.where((truth >= 0.5) == (answers >= 0.5), 1.0 - np.abs(truth - answers), 0.0)
    assert finished.verdict["metric"] == "closeness"
    assert cast(float, finished.chosen["accuracy"]) == pytest.approx(float(closeness.mean()), abs=1e-3)  # float32 sums in other batches
    assert "a sequence counts by the mean over its steps" in finished.notes


def runs_of(model: Path | bytes, x: Array) -> Array:
    """Return the scores of a detector over some sequences, (sequences, steps)."""
    return np.stack([closed_loop_outputs(model, {"x": one[:, None]}, {"stateN": "state"}, {"state": START})[0].ravel() for one in x])


def test_a_state_of_a_convolution_with_a_fixed_batch(tmp_path: Path) -> None:
    finished = run_job(tmp_path, conv_stream(), {"frames": walks(20, STEPS, 8, 4)}, config=LENIENT)

    assert finished.result["outcome"] == "improved"
    assert finished.verdict["n"] == 8  # 40% of 20 sequences
    assert "output 'cache_out' is the next step's 'cache_in'" in finished.notes


def test_a_detector_with_a_sample_rate_and_unknown_sizes(tmp_path: Path) -> None:
    arrays = {"input": walks(20, STEPS, 64), "sr": np.array(16000)}
    finished = run_job(tmp_path, speech_detector(), arrays, config=LENIENT)

    assert finished.result["outcome"] == "improved"
    assert "output 'stateN' is the next step's 'state'" in finished.notes
    assert "input 'sr' is 16000 for the whole job" in finished.notes


def test_a_model_that_takes_several_sequences_a_call_gets_as_many(tmp_path: Path) -> None:
    finished = run_job(tmp_path, baked_batch(), {"x": walks(20, STEPS, 16)}, config=LENIENT)

    assert finished.result["outcome"] == "improved"
    assert "every call has 4" in finished.notes
    assert finished.verdict["n"] == 8


@pytest.mark.long
def test_engines_that_are_simulated_are_run_in_closed_loop_too(tmp_path: Path) -> None:
    config = {**LENIENT, "target": "tensorrt-rtx", "gpu": "RTX 4090", "search": {"max_trials": 2}}
    finished = run_job(tmp_path, gru_detector(), {"x": walks(COUNT, 6, 16)}, config=config)

    assert finished.verdict["n"] == 5
    assert cast(float, finished.verdict["drop"]) > 0.0  # FP16 with a state of its own


NMSE: Json = {"accuracy": {"max_nmse": 1e-5}, "outputs": {"total": "values"}}


@pytest.mark.long
def test_errors_that_add_up_are_seen_in_closed_loop_only(tmp_path: Path) -> None:
    model, start = slow_integrator(), {"memory": np.zeros((1, 8), dtype=np.float32)}
    calibration, validation = ({"x": walks(COUNT, 100, 16, seed=seed)} for seed in (0, 1))
    as_steps = [single_steps(model, arrays, {"memory_out": "memory"}, start) for arrays in (calibration, validation)]

    alone = run_job(tmp_path / "alone", model, as_steps[0], as_steps[1], NMSE)
    in_loop = run_job(tmp_path / "loop", model, calibration, validation, NMSE)

    assert alone.result["outcome"] == "improved"
    assert cast(float, alone.verdict["probability_over_budget"]) < 0.1
    (warning,) = cast(list[str], alone.result["warnings"])
    assert "only single steps were judged" in warning
    assert "these samples seem to be steps in their order" in warning
    assert in_loop.result["outcome"] == "baseline_kept"
    assert in_loop.result["warnings"] == []


def test_ranges_and_probes_see_the_states_that_really_occur(tmp_path: Path) -> None:
    model = slow_integrator()
    driver, job = submitted(tmp_path, model, {"x": walks(10, 20, 16)}, {"x": walks(10, 20, 16, seed=1)}, NMSE)
    found = inspected(driver, job)
    steps = load_saved(driver.workspace.path(found.calibration))

    expected = single_steps(model, {"x": walks(10, 20, 16)}, {"memory_out": "memory"}, {"memory": np.zeros((1, 8), dtype=np.float32)})
    assert steps.samples == found.samples == 200
    assert np.allclose(np.sort(steps.inputs["memory"], axis=0), np.sort(expected["memory"], axis=0), atol=1e-4)  # sums of 20 float32


def test_the_users_pairs_and_starting_states_are_taken(tmp_path: Path) -> None:
    model = model_from_text(
        "g (float[N,16] x, float[N,8] a) => (float[N,8] y, float[N,8] b) { w = Gemm(x, w1) b = Tanh(w) s = Add(b, a) y = Relu(s) }",
        {"w1": (16, 8)},
    )
    arrays = {"x": walks(COUNT, STEPS, 16), "a": np.full((COUNT, 8), 3.0, dtype=np.float32)}
    driver, job = ranged(tmp_path, model, arrays, arrays, {"state": {"b": "a"}})
    inspection = inspection_of(driver, job)

    assert inspection.loop is not None
    assert inspection.loop.states == {"a": 1}
    validation = load_saved(driver.workspace.path(inspection.samples.validation))
    assert validation.starts["a"].tolist() == arrays["a"].tolist()
    held = load_saved(driver.workspace.path(job.calibrated.calibration)).inputs["a"]
    is_start = (held == 3.0).all(axis=1)
    assert is_start.sum() == COUNT
    assert (np.abs(held[~is_start]) <= 1.0).all()  # what Tanh gave


@pytest.mark.parametrize(
    ("arrays", "config", "error", "words"),
    [
        ({"x": walks(10, 5, 16)[:, 0]}, {}, InvalidCalibrationSetError, "state 'state' is left out, so that the samples are sequences"),
        ({"x": walks(10, 5, 16)}, {"state": {"score": "state"}}, InvalidConfigError, "expected the same type and shape"),
        ({"x": walks(4, 5, 16)}, {}, InvalidCalibrationSetError, "at least 8 expected"),
    ],
)
def test_what_cannot_be_run_in_closed_loop_is_refused(
    arrays: Mapping[str, Array], config: Json, error: type[Exception], words: str, tmp_path: Path
) -> None:
    driver, job = submitted(tmp_path, gru_detector(), arrays, config=config)

    with pytest.raises(error, match=words):
        inspected(driver, job)


def test_a_state_that_grows_is_said_of_single_steps(tmp_path: Path) -> None:
    arrays = {"x": walks(10, 5, 1, 8)[:, 0], "past": np.ones((10, 2, 8), dtype=np.float32)}
    driver, single = submitted(tmp_path, growing_cache(), arrays)
    found = driver.workspace.read_value(Inspection, inspected(driver, single).inspection)
    assert "grows from step to step" in found.warnings[-1]
    assert "leave out 'past'" in found.warnings[-1]


def test_a_cache_that_grows_begins_with_what_is_given(tmp_path: Path) -> None:
    arrays = {"x": walks(10, 5, 1, 8), "past": np.ones((10, 2, 8), dtype=np.float32)}
    driver, job = ranged(tmp_path, growing_cache(), arrays, arrays)
    held = load_saved(driver.workspace.path(job.calibrated.calibration)).inputs["past"]
    assert held.shape == (10, 4, 8)  # two given, and two of five steps
    assert (held[:, :2] == 1.0).all()
    assert (held[:, 2:] != 1.0).all()


def test_a_state_that_grows_otherwise_is_refused(tmp_path: Path) -> None:
    model = growing_cache()
    model.graph.node[1].input.append("new")  # two more each step
    driver, job = submitted(tmp_path, model, {"x": walks(10, 5, 1, 8)})
    with pytest.raises(InvalidCalibrationSetError, match=r"state 'past': shape \(\d+, 2, 8\) found after step 1, \(\d+, 1, 8\) expected"):
        inspected(driver, job)


def growing_cache() -> onnx.ModelProto:
    return model_from_text(
        """decoder (float[N,1,8] x, float[N,P,8] past) => (float[N,1,8] y, float[N,Q,8] present)
{
  new = MatMul (x, w1)
  present = Concat <axis = 1> (past, new)
  all = ReduceMean <axes = [1]> (present)
  mixed = MatMul (all, w2)
  y = Add (mixed, x)
}""",
        {"w1": (8, 8), "w2": (8, 8)},
    )
