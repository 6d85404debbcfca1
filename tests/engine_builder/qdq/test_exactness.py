"""An engine's file says on which processors its integers are exact, from the weights that it has."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from calibration.graph.layers import find_layers
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, Precision
from engine_builder.qdq.exactness import engine_exact_on
from engine_builder.qdq.onnxruntime_dialect import rewrite
from tests.engine_builder.fake_quantized import OUTPUTS, RESIDUAL, measured_ranges, model_of, samples_of
from tests.this_processor import EXACT_ANYWHERE


def written(folder: Path, text: str, quantized: tuple[str, ...] | None, *, bounds_pairs: bool) -> Path:
    model = model_of(text)
    layers = find_layers(model)
    precisions = {layer.name: Precision.INT8 for layer in layers if quantized is None or layer.name in quantized}
    scheme = EXACT_ANYWHERE if bounds_pairs else ONNXRUNTIME_CPU_SCHEME
    path = folder / "engine.onnx"
    onnx.save_model(rewrite(model, layers, precisions, measured_ranges(model, samples_of(model)), scheme), path)
    return path


@pytest.mark.parametrize(
    ("text", "quantized", "bounds_pairs", "expected"),
    [
        (RESIDUAL, None, False, "x86-64 processors with VNNI"),
        (RESIDUAL, None, True, "any x86-64 or ARM64 processor"),
        (OUTPUTS, ("depthwise", "transposed"), False, "any x86-64 or ARM64 processor"),  # neither adds pairs
        (RESIDUAL, ("add",), False, "any x86-64 or ARM64 processor"),
    ],
)
def test_the_file_says_where_it_is_exact(
    tmp_path: Path, text: str, quantized: tuple[str, ...] | None, *, bounds_pairs: bool, expected: str
) -> None:
    said = engine_exact_on(written(tmp_path, text, quantized, bounds_pairs=bounds_pairs))
    assert said is not None
    assert said.startswith(expected)


def test_float_engines_and_plans_say_nothing(tmp_path: Path) -> None:
    assert engine_exact_on(written(tmp_path, RESIDUAL, (), bounds_pairs=False)) is None
    assert engine_exact_on(tmp_path / "engine.plan") is None


def test_what_the_user_wrote_into_the_metadata_stays(tmp_path: Path) -> None:
    model = model_of(RESIDUAL)
    onnx.helper.set_model_props(model, {"author": "somebody"})
    layers = find_layers(model)
    quantized = {layer.name: Precision.INT8 for layer in layers}
    explicit = rewrite(model, layers, quantized, measured_ranges(model, samples_of(model)), ONNXRUNTIME_CPU_SCHEME)
    assert "somebody" in {entry.value for entry in explicit.metadata_props}
