from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from calibration.number_formats.precision import Precision
from engine_builder.interchange.polygraphy_script import polygraphy_script

ASSIGNMENT = {"conv 'one'": Precision.INT8, "fc": Precision.FP16}


class Layer:
    """A layer of a network of TensorRT 10."""

    num_outputs = 2

    def __init__(self, name: str) -> None:
        self.name, self.precision, self.outputs = name, "", dict[int, str]()

    def set_output_type(self, index: int, kind: str) -> None:
        self.outputs[index] = kind


def postprocess(monkeypatch: pytest.MonkeyPatch, *flags: str) -> Any:
    """Return the script's function, with a TensorRT that has these builder flags."""
    module = ModuleType("tensorrt")
    names = {name: name for name in ("float32", "float16", "int8")}
    module.__dict__.update(names, BuilderFlag=SimpleNamespace(**dict.fromkeys(flags, 1)))
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    names_of_script: dict[str, Any] = {}
    exec(compile(polygraphy_script(ASSIGNMENT), "script.py", "exec"), names_of_script)
    return names_of_script["postprocess"]


def test_layers_get_their_precision_and_float_ones_their_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [Layer("conv 'one'"), Layer("fc"), Layer("relu")]
    postprocess(monkeypatch, "OBEY_PRECISION_CONSTRAINTS")(layers)
    assert [layer.precision for layer in layers] == ["int8", "float16", ""]
    assert [layer.outputs for layer in layers] == [{}, {0: "float16", 1: "float16"}, {}]


def test_a_layer_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match=r"does not have: .*fc"):
        postprocess(monkeypatch, "OBEY_PRECISION_CONSTRAINTS")([Layer("conv 'one'")])


def test_a_version_without_precisions_of_layers_says_what_to_give_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match=r"model\.explicit\.onnx"):
        postprocess(monkeypatch)([])


def test_the_command_has_the_flags_of_the_precisions_used() -> None:
    assert "--trt --fp16 --int8 --precision-constraints obey" in polygraphy_script(ASSIGNMENT)
