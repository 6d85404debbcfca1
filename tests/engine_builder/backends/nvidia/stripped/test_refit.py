"""Weights put back into a plan: where they are, what is refused, and that nothing runs without them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from engine_builder.backends.nvidia.runner import TensorRtRunner
from engine_builder.backends.nvidia.stripped.refit import STRIPPED_SUFFIX, note_weights, weights_of
from engine_builder.errors import BuildError
from tests.engine_builder import fake_tensorrt as fakes
from tests.engine_builder.fake_gpu import FakeGpu
from tests.engine_builder.fake_tensorrt import fake_tensorrt


class Refitter:
    """Takes what ``missing`` leaves."""

    def __init__(self, engine: object, log: object, *, told: list[str], missing: list[str], refuses: bool) -> None:
        self._told, self._missing, self._refuses = told, missing, refuses

    def get_missing_weights(self) -> list[str]:
        return self._missing

    def refit_cuda_engine(self) -> bool:
        self._told.append("put back")
        return not self._missing and not self._refuses


def module(told: list[str], *, fits: bool = True, missing: tuple[str, ...] = (), refuses: bool = False) -> ModuleType:
    gpu = FakeGpu()
    trt = fake_tensorrt(gpu)

    def read(path: str) -> bool:
        told.append(f"read {Path(path).name}")
        return fits

    def reader(refitter: Any, log: object) -> SimpleNamespace:
        error = SimpleNamespace(desc=lambda: "Only successfully refitted 1 weights out of 2")
        return SimpleNamespace(refit_from_file=read, num_errors=0 if fits else 1, get_error=lambda index: error)

    trt.__dict__["Refitter"] = lambda engine, log: Refitter(engine, log, told=told, missing=list(missing), refuses=refuses)
    trt.__dict__["OnnxParserRefitter"] = reader
    return trt


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    found = tmp_path / "engine.plan"
    found.write_bytes(b"double")
    (tmp_path / "model.explicit.onnx").write_bytes(b"weights")
    note_weights(found, tmp_path / "model.explicit.onnx")
    return found


def test_a_plan_with_its_weights_needs_none(tmp_path: Path) -> None:
    assert weights_of(tmp_path / "engine.plan") is None


def test_where_the_weights_are_stands_beside_the_plan(plan: Path) -> None:
    assert weights_of(plan) == plan.with_name("model.explicit.onnx")


def test_they_are_put_back_before_there_is_a_context(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    make = fakes.ICudaEngine.create_execution_context

    def context(engine: fakes.ICudaEngine) -> object:
        told.append("context")
        return make(engine)

    monkeypatch.setattr(fakes.ICudaEngine, "create_execution_context", context)
    TensorRtRunner(module(told), plan, FakeGpu())
    assert told == ["read model.explicit.onnx", "put back", "context"]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"fits": False}, "the weights of model.explicit.onnx do not fit into it: Only successfully refitted 1 weights out of 2"),
        ({"missing": ("w1", "w2", "w3", "w4")}, "could not be put back: 4 are missing, 'w1', 'w2', 'w3' among them"),
        ({"refuses": True}, "could not be put back: no reason given"),
    ],
)
def test_a_plan_whose_weights_do_not_go_back_is_not_opened(plan: Path, how: dict[str, Any], words: str) -> None:
    with pytest.raises(BuildError, match=words) as caught:
        TensorRtRunner(module([], **how), plan, FakeGpu())
    assert "leave builder.strip_weights out" in caught.value.fix


def test_a_plan_whose_weights_are_gone_is_not_opened(plan: Path) -> None:
    plan.with_name("model.explicit.onnx").unlink()
    with pytest.raises(BuildError, match=r"engine\.plan: its weights, model\.explicit\.onnx, are not beside it"):
        TensorRtRunner(module([]), plan, FakeGpu())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weights": 1}'])
def test_a_file_that_does_not_say_where_they_are_is_an_error_and_no_whole_plan(plan: Path, text: str) -> None:
    plan.with_name(plan.name + STRIPPED_SUFFIX).write_text(text)
    with pytest.raises(BuildError, match="where its weights are cannot be read"):
        weights_of(plan)
