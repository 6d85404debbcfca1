"""Probes compare the scores that labels were chosen from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.accuracy.metrics import OutputKind
from calibration.data.sample_axes import OutputAxis
from calibration.graph_passes.normalize import prepare
from calibration.onnx_model.model_io import output_specs
from engine_builder.pipeline.stage_table import SENSITIVITY
from engine_builder.records.probed_outputs import ProbedOutputs, probed_outputs
from engine_builder.stage_io.measuring import SensitivityRequest
from tests.called_models import calls_of
from tests.driver import inspection_of, ranged
from tests.model_text import model_from_text

LABELS, LOGITS, VALUES = OutputKind.LABELS, OutputKind.LOGITS, OutputKind.VALUES


def probed(nodes: str, output: str, kind: OutputKind = LABELS) -> ProbedOutputs:
    model = prepare(model_from_text(f"g (float[N,5,6] x) => ({output} z) {{ s = MatMul(x, w) {nodes} }}", {"w": (6, 4)})).model
    names = [spec.name for spec in output_specs(model)]
    return probed_outputs(model, names, (kind,), calls_of(model).axes)


@pytest.mark.parametrize(
    ("nodes", "output", "axis"),
    [
        ("z = ArgMax<axis=2, keepdims=0>(s)", "int64[N,5]", OutputAxis()),
        ("z = ArgMax<axis=-1>(s)", "int64[N,5,1]", OutputAxis()),
        ("i = ArgMax<axis=2, keepdims=0>(s) z = Cast<to=6>(i)", "int32[N,5]", OutputAxis()),
        ("z = ArgMax<axis=1, keepdims=0>(s)", "int64[N,4]", OutputAxis(0, classes=1)),
        ("t = Transpose<perm=[2,1,0]>(s) z = ArgMax<axis=0, keepdims=0>(t)", "int64[5,N]", OutputAxis(2, classes=0)),
    ],
)
def test_scores_stand_for_the_labels_of_an_argmax(nodes: str, output: str, axis: OutputAxis) -> None:
    found = probed(nodes, output)
    assert (found.kinds, found.axes.outputs) == ((LOGITS,), (axis,))
    assert found.names == (("t",) if "Transpose" in nodes else ("s",))


@pytest.mark.parametrize(
    ("nodes", "output", "kind"),
    [
        ("zero = Constant<value = float {0.0}>() z = Greater(s, zero)", "bool[N,5,4]", LABELS),
        ("z = Relu(s)", "float[N,5,4]", VALUES),
    ],
)
def test_other_outputs_stand_for_themselves(nodes: str, output: str, kind: OutputKind) -> None:
    found = probed(nodes, output, kind)
    assert (found.names, found.kinds, found.axes.outputs) == (("z",), (kind,), (OutputAxis(),))


def test_scores_come_samples_first_with_classes_last() -> None:
    scores = np.arange(60).reshape(4, 5, 3)  # (classes, rows, samples)
    np.testing.assert_array_equal(OutputAxis(2, classes=0).samples_first(scores, 3), scores.transpose(2, 1, 0))
    np.testing.assert_array_equal(OutputAxis(0, classes=1).samples_first(scores, 4), scores.transpose(0, 2, 1))
    np.testing.assert_array_equal(OutputAxis(None, classes=0).samples_first(scores, 1), scores.transpose(1, 2, 0)[None])


def test_a_layer_that_changes_no_label_still_has_a_loss(tmp_path: Path) -> None:
    text = "g (float[N,6] x) => (int64[N] z) { h = MatMul(x, w1) r = Relu(h) s = MatMul(r, w2) z = ArgMax<axis=1, keepdims=0>(s) }"
    driver, basics = ranged(tmp_path, model_from_text(text, {"w1": (6, 16), "w2": (16, 3)}))
    assert inspection_of(driver, basics).model.outputs.kinds == (LABELS,)
    driver.run(SENSITIVITY, SensitivityRequest(basics.calibrated, 0, 8))
    with np.load(next(tmp_path.rglob("layer-losses-*.npz"))) as found:
        assert (found["loss"].mean(axis=0) > 0.0).all()
