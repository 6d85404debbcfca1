"""What becomes of a job's model where folding its constants is exact, and where it is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from calibration.graph_passes.folding.folded_steps import FoldedSteps, Place
from calibration.onnx_model.model_io import read_model
from engine_builder.engines.exact_folding import NOT_EXACT
from engine_builder.records.inspection import Inspection
from tests.driver import inspected, submitted
from tests.model_text import Array, halved, model_from_text

_TARGETS = ("onnxruntime-cpu", "tensorrt-rtx")


def shifted(offset: float) -> onnx.ModelProto:
    """A Gemm whose input has an offset taken off, and whose output is scaled."""
    model = model_from_text(
        "g (float[N,6] x) => (float[N,3] y) { d = Sub(x, offset) h = Gemm(d, w, b) y = Mul(h, f) }", {"w": (6, 3), "b": (3,), "f": (3,)}
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.full((6,), offset, np.float32), "offset"))
    return model


def samples(offset: float, dtype: type[np.generic] = np.float32) -> dict[str, Array]:
    return {"x": (np.random.default_rng(5).normal(size=(48, 6)) + offset).astype(dtype)}


def found(folder: Path, model: onnx.ModelProto, given: dict[str, Array], target: str) -> tuple[Inspection, list[str]]:
    """Return the inspection of a job and the operators of its prepared model."""
    config = {"target": target} | ({"gpu": "L4"} if target != "onnxruntime-cpu" else {})
    driver, job = submitted(folder, model, given, config=config)
    inspection = driver.workspace.read_value(Inspection, inspected(driver, job).inspection)
    prepared = read_model(driver.workspace.path(inspection.model.file))
    return inspection, [node.op_type for node in prepared.graph.node]


@pytest.mark.parametrize("target", _TARGETS)
def test_constants_are_folded_where_that_is_exact(tmp_path: Path, target: str) -> None:
    inspection, operators = found(tmp_path, shifted(0.5), samples(0.5), target)
    assert operators == ["Gemm"]
    assert inspection.folded == (FoldedSteps("Mul", Place.BEHIND, 1, 1), FoldedSteps("Sub", Place.BEFORE, 1, 1))
    assert "folded into weights and biases: 1 Mul behind layers, 1 Sub before layers" in inspection.notes


@pytest.mark.parametrize("target", _TARGETS)
def test_constants_stay_where_rounding_is_most_of_the_difference(tmp_path: Path, target: str) -> None:
    inspection, operators = found(tmp_path, shifted(2.0**15), samples(2.0**15), target)
    assert operators == ["Sub", "Gemm", "Mul"]
    assert inspection.folded == ()
    assert NOT_EXACT in inspection.notes
    assert not any(note.startswith("folded") for note in inspection.notes)


def test_a_model_in_half_precision_is_compared_in_float32(tmp_path: Path) -> None:
    model = halved(shifted(0.5), onnx.TensorProto.FLOAT16)
    inspection, operators = found(tmp_path, model, samples(0.5, np.float16), "onnxruntime-cpu")
    assert "Mul" not in operators
    assert len(inspection.folded) == 2
    assert NOT_EXACT not in inspection.notes
