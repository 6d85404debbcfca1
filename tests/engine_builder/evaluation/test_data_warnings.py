"""Labels that the float model does not fit are refused with a cause; odd samples are warned of, and sound ones pass in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from calibration.errors import InvalidCalibrationSetError
from engine_builder.records.inspection import Inspection
from tests.calibration.data.test_first_statistics import PIXELS, PREPARED, trained
from tests.driver import Samples
from tests.engine_builder.stages.test_inspect import inspection, problem
from tests.model_text import model_from_text, samples_for

Array = NDArray[Any]
CLASSES, SHAPE = 10, (3, 8, 8)
PROTOTYPES = np.random.default_rng(21).normal(size=(CLASSES, *SHAPE))


def classifier(*, tokens: bool = False) -> onnx.ModelProto:
    """Return a network that names the prototype which a picture is nearest to; class 0 is none of them (a background)."""
    weight = np.concatenate([np.zeros((1, PROTOTYPES[0].size)), PROTOTYPES.reshape(CLASSES, -1)]).T
    shape: list[str | int] = ["N", 5, PROTOTYPES[0].size] if tokens else ["N", *SHAPE]
    nodes = [onnx.helper.make_node("MatMul", ["squashed" if tokens else "flat", "weight"], ["y"])]
    if not tokens:
        nodes.insert(0, onnx.helper.make_node("Flatten", ["squashed"], ["flat"]))
    nodes.insert(0, onnx.helper.make_node("Clip", ["x", "low", "high"], ["squashed"]))
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", *([5] if tokens else []), CLASSES + 1])],
        [
            onnx.numpy_helper.from_array(np.asarray(value, dtype=np.float32), name)
            for name, value in (("weight", weight), ("low", -8.0), ("high", 8.0))
        ],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def pictures(count: int, seed: int, classes: int = CLASSES) -> dict[str, Array]:
    """Return noisy prototypes with their labels, 1 to 10."""
    rng = np.random.default_rng(seed)
    named = rng.integers(0, classes, count)
    x = PROTOTYPES[named] + rng.normal(scale=2.0, size=(count, *SHAPE))
    return {"x": x.astype(np.float32), "labels": named + 1}


CALIBRATION = {"x": pictures(40, 1)["x"]}
VALIDATION = pictures(200, 2)


def changed(**arrays: Array) -> dict[str, Array]:
    return {**VALIDATION, **arrays}


def inspected(folder: Path, validation: Samples, calibration: Samples = CALIBRATION, **accuracy: object) -> Inspection:
    return inspection(folder, classifier(), calibration, validation, {"accuracy": accuracy})


def test_sound_data_pass_in_silence(tmp_path: Path) -> None:
    assert inspected(tmp_path, VALIDATION).warnings == ()


@pytest.mark.parametrize("metric", ["top1", "top5"])
def test_labels_at_random_are_refused_with_the_likely_causes(metric: str, tmp_path: Path) -> None:
    labels = np.random.default_rng(3).permutation(VALIDATION["labels"])
    error = problem(tmp_path, classifier(), CALIBRATION, changed(labels=labels), {"accuracy": {"metric": metric}})
    assert type(error) is InvalidCalibrationSetError
    assert f"the float model's {metric} on 200 validation samples is 0." in error.detail
    for words in ("not shuffled", "not shifted", "prepared as for training", "layout", "accuracy.allow_chance"):
        assert words in error.fix


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (VALIDATION["labels"] - 1, "labels + 1"),
        (np.roll(VALIDATION["labels"], 1), "the labels one sample later"),
        (VALIDATION["labels"][::-1] * 0 + (VALIDATION["labels"] * 3) % 11, "the classes in the model's own order"),
    ],
)
def test_a_cause_that_is_found_is_named(labels: Array, words: str, tmp_path: Path) -> None:
    error = problem(tmp_path, classifier(), CALIBRATION, changed(labels=labels))
    assert f"; {words}" in error.detail
    assert error.fix.startswith(f"Try {words}")


def test_labels_past_the_last_class_by_one_are_told_so(tmp_path: Path) -> None:
    error = problem(tmp_path, classifier(), CALIBRATION, changed(labels=VALIDATION["labels"] + 1))
    assert "found values 2 to 11, expected 0 to 10" in error.detail
    error = problem(tmp_path, classifier(), CALIBRATION, changed(labels=np.where(VALIDATION["labels"] == 10, 11, VALIDATION["labels"])))
    assert error.fix == "Number the classes as the model does, from 0: give labels - 1."


def test_pictures_on_their_side_are_told_by_trying(tmp_path: Path) -> None:
    (warning,) = inspected(tmp_path, changed(x=np.swapaxes(VALIDATION["x"], 2, 3))).warnings
    assert "swapping height and width would give" in warning  # the diagonal stays, which is enough to beat chance


def test_labels_of_tokens_are_held_against_chance_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    labels = rng.integers(1, CLASSES + 1, (80, 5))
    x = PROTOTYPES.reshape(CLASSES, -1)[labels - 1] + rng.normal(size=(80, 5, PROTOTYPES[0].size))
    samples: dict[str, Array] = {"x": x.astype(np.float32), "labels": labels}
    assert inspection(tmp_path / "sound", classifier(tokens=True), samples, samples).warnings[1:] == ()  # but for the shared samples
    error = problem(tmp_path / "shifted", classifier(tokens=True), samples, {**samples, "labels": labels - 1})
    assert error.fix.startswith("Try labels + 1.")


def test_a_key_makes_it_a_warning(tmp_path: Path) -> None:
    labels = np.random.default_rng(3).permutation(VALIDATION["labels"])
    (warning,) = inspected(tmp_path, changed(labels=labels), allow_chance=True).warnings
    assert "the float model's top1 on 200 validation samples" in warning
    assert "accuracy.allow_chance" in warning


def test_labels_do_not_matter_to_a_metric_without_them(tmp_path: Path) -> None:
    labels = np.random.default_rng(3).permutation(VALIDATION["labels"])
    assert inspected(tmp_path, changed(labels=labels), metric="agreement").warnings == ()


def test_labels_of_one_class_are_warned_of(tmp_path: Path) -> None:
    (warning,) = inspected(tmp_path, pictures(60, 7, classes=1)).warnings
    assert warning.startswith("all 60 validation samples have labels that one constant answer fits (class 1)")


def test_labels_of_one_class_that_are_all_wrong_are_refused(tmp_path: Path) -> None:
    samples = pictures(60, 7, classes=1)
    error = problem(tmp_path, classifier(), CALIBRATION, {**samples, "labels": samples["labels"] + 4})
    assert "scores top1 0 on all 60 validation samples" in error.detail


def test_too_few_labels_to_tell_are_warned_of(tmp_path: Path) -> None:
    (warning,) = inspected(tmp_path, {"x": VALIDATION["x"][:2], "labels": VALIDATION["labels"][:2]}).warnings
    assert warning.startswith("2 validation samples are too few")


def test_a_rare_class_does_not_make_a_sound_model_chance(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    samples = pictures(600, 9)
    is_rare = rng.random(600) < 0.05
    named = np.where(is_rare, 2, 1)
    shown = np.where(rng.random(600) < 0.06, 3 - named, named)  # what the picture really shows: six in a hundred are mislabelled
    x = (PROTOTYPES[shown - 1] + rng.normal(size=(600, *SHAPE))).astype(np.float32)
    (warning,) = inspected(tmp_path, {**samples, "x": x, "labels": named}).warnings
    assert "is not surely above that of always answering class 1" in warning


def test_a_refusal_names_a_preparation_that_fits(tmp_path: Path) -> None:
    pixels = np.clip(128 + 30 * VALIDATION["x"], 9, 255).astype(np.float32)  # all of them past what the model tells apart
    error = problem(tmp_path, classifier(), CALIBRATION, changed(x=pixels))
    assert error.fix.startswith("Try scaling the pixels from 0..255 to -1..1.")


def test_constant_and_repeated_samples_are_warned_of(tmp_path: Path) -> None:
    dark, twice = CALIBRATION["x"].copy(), CALIBRATION["x"].copy()
    dark[:3], twice[:3] = 0.0, twice[3:6]
    (warning,) = inspected(tmp_path / "dark", VALIDATION, {"x": dark}).warnings
    assert warning.startswith("3 of 40 calibration samples hold one value")
    (warning,) = inspected(tmp_path / "twice", VALIDATION, {"x": twice}).warnings
    assert warning.startswith("3 of 40 calibration samples are copies")
    (warning,) = inspection(tmp_path / "held out", classifier(), {"x": twice}).warnings
    assert warning.startswith("3 of 40 calibration samples are copies")


def test_shared_samples_are_found_by_content(tmp_path: Path) -> None:
    calibration = {"x": np.concatenate([CALIBRATION["x"], VALIDATION["x"][:50]])}
    (warning,) = inspected(tmp_path, VALIDATION, calibration).warnings
    assert warning.startswith("50 of 200 validation samples are calibration samples too")


def test_pixels_that_nobody_scaled_are_told_by_the_first_batch_normalization(tmp_path: Path) -> None:
    assert inspection(tmp_path / "sound", trained(), {"x": PREPARED}).warnings == ()
    (warning,) = inspection(tmp_path / "raw", trained(), {"x": PIXELS}).warnings
    assert warning.startswith("calibration samples: the input of BatchNormalization 'n' has")


def test_a_model_that_gives_every_sample_one_class_is_warned_of(tmp_path: Path) -> None:
    one = {"x": pictures(24, 5)["x"] * 0.01 + PROTOTYPES[3].astype(np.float32)}
    (warning,) = inspection(tmp_path / "one", classifier(), one).warnings
    assert "samples class 4 (output 'y'): agreement says little" in warning
    assert inspection(tmp_path / "several", classifier(), {"x": pictures(60, 6)["x"]}).warnings == ()


def test_an_output_that_is_the_same_for_all_samples_is_warned_of(tmp_path: Path) -> None:
    silent = {"x": pictures(24, 7)["x"]}
    model = classifier()
    for tensor in model.graph.initializer:
        if tensor.name == "high":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(-8.0, np.float32), "high"))
    (warning,) = inspection(tmp_path, model, silent).warnings
    assert warning.startswith("output 'y' is the same for all ")


@pytest.mark.parametrize("metric", [{"metric": "kl", "max_kl": 0.01}, {"metric": "agreement"}])
def test_a_note_says_on_which_axis_a_metric_of_classes_finds_them(tmp_path: Path, metric: dict[str, object]) -> None:
    model = model_from_text("g (float[N,3,6,8] x) => (float[N,4,6,8] seg) { seg = Conv(x, w) }", {"w": (4, 3, 1, 1)})
    found = inspection(tmp_path, model, samples_for(model, 20), config={"accuracy": metric})
    assert f"the metric {metric['metric']} takes 'seg' for scores of 4 classes, on axis 1, for each of 48 places" in found.notes


def test_a_note_says_that_a_metric_of_classes_reads_what_seems_to_hold_none(tmp_path: Path) -> None:
    model = model_from_text("g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, w) y = Tanh(h) }", {"w": (6, 4)})
    found = inspection(tmp_path, model, samples_for(model, 20), config={"accuracy": {"max_kl": 0.01}})
    assert "the metric kl takes 'y' for scores of 4 classes, on the last axis, which it seems not to hold" in found.notes


def test_a_note_says_that_a_metric_of_classes_counts_padding(tmp_path: Path) -> None:
    text = "g (float[N,8,6] x, int64[N,8] attention_mask) => (float[N,8,4] logits) { m = Cast<to = 1>(attention_mask) "
    text += "axis = Constant<value = int64[1] {2}>() u = Unsqueeze(m, axis) y = MatMul(x, w) logits = Add(y, u) }"
    model = model_from_text(text, {"w": (6, 4)})
    samples = samples_for(model, 20)
    for mask, is_told in ((np.tril(np.ones((20, 8), np.int64)), True), (np.ones((20, 8), np.int64), False)):
        given = {**samples, "attention_mask": mask}
        found = inspection(tmp_path / str(is_told), model, given, given, {"accuracy": {"max_kl": 0.01}})
        assert any("counts the positions of 'logits' too that an input takes out" in note for note in found.notes) == is_told
