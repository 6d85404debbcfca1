"""Targets that build with another parser refuse what only onnxruntime has, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from calibration.errors import InvalidModelError
from tests.engine_builder.stages.test_inspect import problem
from tests.runtime_models import RUNTIME_ONLY

CARD: Mapping[str, object] = {"target": "tensorrt-rtx", "gpu": "RTX 4090"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("scaler", "operator 'Imputer' of the domain 'ai.onnx.ml': onnxruntime-cpu has it, the target tensorrt-rtx does not"),
        ("fused_operators", "operator 'BiasGelu' of the domain 'com.microsoft'"),
        ("simplified_layer_norm", "operator 'SimplifiedLayerNormalization', which is not in the ONNX standard"),
        ("label_outputs", "operator 'LabelEncoder' of the domain 'ai.onnx.ml'"),
    ],
)
def test_what_only_onnxruntime_has_is_refused(name: str, words: str, tmp_path: Path) -> None:
    error = problem(tmp_path, RUNTIME_ONLY[name](), config=CARD)
    assert type(error) is InvalidModelError
    assert words in error.detail
    assert "Set target to onnxruntime-cpu" in error.fix
