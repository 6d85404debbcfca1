"""Targets that build with another parser refuse what only onnxruntime has, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from calibration.errors import InvalidModelError
from engine_builder.backends.base import Capabilities
from engine_builder.backends.nvidia.tensorrt_rtx import TensorRtRtxBackend
from engine_builder.engines.builder_check import prepare_for
from engine_builder.errors import UnsupportedModelError
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


class WithPlugins(TensorRtRtxBackend):
    """Says that its parser may know operators of other domains."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, has_plugins=True)


def test_where_there_are_plugins_the_parser_itself_is_asked_for_operators_of_other_domains(tmp_path: Path) -> None:
    model = RUNTIME_ONLY["fused_operators"]()
    with pytest.raises(UnsupportedModelError, match=r"does not take node .*\(BiasGelu\): it does not know this operator") as caught:
        prepare_for(WithPlugins("RTX 4090"), model, tmp_path)
    assert "onnxruntime-cpu" in caught.value.fix
