"""The stages on the GPU, with engines and a GPU that pretend."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from calibration.codec import json_from_value, value_from_json
from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare
from engine_builder.backends.base import Engine
from engine_builder.backends.gpu.cuda_runtime import CudaRuntime, Stream
from engine_builder.backends.gpu.event_timing import Transfers
from engine_builder.backends.kernels import Kernel, KernelTensor
from engine_builder.backends.nvidia.runner import TensorRtRunner
from engine_builder.backends.nvidia.tensorrt import TensorRtBackend
from engine_builder.config.config import ShapeRange
from engine_builder.errors import UnsupportedTargetError
from engine_builder.self_check.cases import CASES, assignment_of, case_by_name
from engine_builder.self_check.first_contact.stages import require_driver
from engine_builder.self_check.gpu import gpu_build, gpu_run, gpu_time
from engine_builder.self_check.model import BATCH, INPUT, PICTURE
from engine_builder.self_check.times import TimedCases
from engine_builder.self_check.workspace import EXPLICIT, PREPARED, SAMPLES, SIMULATED
from engine_builder.workspace.workspace import StageContext, Workspace
from tests.engine_builder.fake_gpu import FakeGpu
from tests.engine_builder.fake_quantized import model_of
from tests.engine_builder.qdq.networks import BLOCKS

LOGITS = np.random.default_rng(0).standard_normal((2 * BATCH, 10)).astype(np.float32)


@pytest.fixture
def context(tmp_path: Path) -> StageContext:
    workspace = Workspace(tmp_path / "workspace")
    onnx.save_model(prepare(model_of(BLOCKS)).model, workspace.path(PREPARED))
    workspace.write_bytes(EXPLICIT.format("int8"), b"explicit")
    pictures = np.zeros((2 * BATCH, *PICTURE), dtype=np.float32)
    pictures[:, 0, 0, 0] = np.arange(2 * BATCH)  # by which the engine that pretends knows them
    workspace.write_arrays(SAMPLES, pictures=pictures)
    workspace.write_arrays(SIMULATED.format("int8"), logits=LOGITS)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return StageContext(workspace, scratch, lambda done, line: None)


class KnowingRunner:
    """Knows what every picture gives; each batch is of the size that the engine was built for."""

    def __init__(self, batch: int, off: float) -> None:
        self._batch, self._off = batch, off

    def run(self, feeds: Mapping[str, NDArray[np.generic]]) -> tuple[NDArray[np.generic], ...]:
        pictures = feeds[INPUT]
        assert len(pictures) == self._batch
        return (LOGITS[pictures[:, 0, 0, 0].astype(int)] + np.float32(self._off),)

    def close(self) -> None:
        return None


class Builder:
    """A backend whose engine has each layer's kernel in its precision, but for the layers of ``kept``, which are in FP16."""

    def __init__(self, context: StageContext, *, kept: str = "", sized: bool = True, off: float = 0.0) -> None:
        self._context, self._kept, self._sized, self._off = context, kept, sized, off
        self.shapes: Mapping[str, ShapeRange] = {}

    def build(self, explicit: Path, output: Path, *, shapes: Mapping[str, ShapeRange]) -> Engine:
        assert explicit.read_bytes() == b"explicit"
        self.shapes = shapes
        output.write_bytes(b"plan")
        model = onnx.load_model(self._context.workspace.path(PREPARED))
        layers = find_layers(model)
        precisions = assignment_of(case_by_name("int8"), model, layers)
        size = (512, 512) if self._sized else ()
        kernels = []
        for layer in layers:
            dtype = "int8" if precisions[layer.name] == "int8" and layer.name != self._kept else "half"
            tensor = KernelTensor(dtype, size)
            kernels.append(Kernel(layer.name, "gemm", (layer.name,), (tensor,), (tensor,), (KernelTensor("half", size),)))
        return Engine(output, (), 4, tuple(kernels))

    def open(self, engine: Path, *, threads: int) -> KnowingRunner:
        assert engine.read_bytes() == b"plan"
        return KnowingRunner(BATCH, self._off)


def making(builder: Builder) -> Callable[[], TensorRtBackend]:
    return lambda: cast(TensorRtBackend, builder)


def rows(found: Mapping[str, object]) -> list[Mapping[str, object]]:
    return cast("list[Mapping[str, object]]", found["reached"])


def test_an_engine_is_built_at_its_batch_and_kept_with_what_each_layer_got(context: StageContext) -> None:
    builder = Builder(context)
    found = gpu_build({"case": "int8", "gpu": "RTX 4090"}, context, make=making(builder))
    assert builder.shapes[INPUT].opt == (BATCH, *PICTURE)
    assert {row["asked"] for row in rows(found)} == {"int8"}
    assert all(row["reason"] is None for row in rows(found))
    assert cast("Mapping[str, float]", found["roofline"])["launches"] > 0


def test_a_layer_that_the_engine_has_otherwise_is_named_with_its_rule(context: StageContext) -> None:
    found = gpu_build({"case": "int8", "gpu": "RTX 4090"}, context, make=making(Builder(context, kept="conv2")))
    ((layer, got),) = ((row["layer"], row["got"]) for row in rows(found) if row["reason"] is not None)
    assert (layer, got) == ("conv2", "fp16")


@pytest.mark.parametrize(("sized", "gpu", "words"), [(False, "RTX 4090", "expected the model's"), (True, "Unheard 9", "Unheard 9")])
def test_a_roofline_that_cannot_be_told_says_why(context: StageContext, sized: bool, gpu: str, words: str) -> None:
    found = gpu_build({"case": "int8", "gpu": gpu}, context, make=making(Builder(context, sized=sized)))
    assert words in str(found["no_roofline_because"])


@pytest.mark.parametrize(("off", "largest"), [(0.0, 0.0), (0.5, 0.5)])
def test_an_engine_is_compared_with_its_simulation_on_the_same_pictures(context: StageContext, off: float, largest: float) -> None:
    builder = Builder(context, off=off)
    gpu_build({"case": "int8", "gpu": "RTX 4090"}, context, make=making(builder))
    found = cast("Mapping[str, float]", gpu_run({"case": "int8"}, context, make=making(builder))["comparison"])
    assert (found["samples"], found["agreement"]) == (2 * BATCH, 1.0)
    assert found["largest_difference"] == pytest.approx(largest, abs=1e-6)  # float32 sums


@dataclasses.dataclass
class TimedRunner:
    """Takes as long as its name says, and less as a graph than without."""

    gpu: FakeGpu
    milliseconds: float
    batches: list[int]
    closed: bool = False

    def prepare(self, feeds: Mapping[str, NDArray[np.generic]]) -> None:
        self.batches.append(len(feeds[INPUT]))

    def enqueue(self, stream: int) -> bool:
        self.gpu.now_ms += self.milliseconds * (1.0 if stream == 0 else 1.5)  # 0 is the stream of a graph that pretends
        return True

    def copy_in(self, stream: Stream) -> None:
        self.gpu.now_ms += 0.25

    def copy_out(self, stream: Stream) -> None:
        self.gpu.now_ms += 0.125

    def close(self) -> None:
        self.closed = True


def test_engines_are_timed_with_and_without_graphs_each_at_its_batch(context: StageContext, tmp_path: Path) -> None:
    gpu = FakeGpu()
    opened: dict[str, TimedRunner] = {}

    def open_runner(plan: Path, cuda: CudaRuntime) -> TensorRtRunner:
        milliseconds = {"fp16.plan": 2.0, "int8.plan": 1.0, "mixed.plan": 1.5, "fp16-batch-1.plan": 0.5}[plan.name]
        runner = TimedRunner(gpu, milliseconds, opened.setdefault(plan.name, TimedRunner(gpu, 0, [])).batches)
        opened[plan.name] = runner
        return cast(TensorRtRunner, runner)

    found = gpu_time(
        {"cases": [case.name for case in CASES]},
        context,
        open_gpu=lambda: gpu,
        open_runner=open_runner,
        open_monitor=lambda bus: None,
        seconds=0.01,
        lock_folder=tmp_path / "locks",
    )
    timed = value_from_json(TimedCases, found)
    assert json_from_value(timed) == found
    medians = {name: times.median_ms for name, times in timed.timings.items()}
    without = {name: times.without_graph_ms for name, times in timed.timings.items()}
    assert medians == pytest.approx({"fp16": 2.0, "int8": 1.0, "mixed": 1.5, "fp16, batch 1": 0.5})
    assert without == pytest.approx({"fp16": 3.0, "int8": 1.5, "mixed": 2.25, "fp16, batch 1": 0.75})
    assert all(times.graph for times in timed.timings.values())
    assert timed.timings["fp16"].transfers_ms == Transfers(to_device_ms=0.25, to_host_ms=0.125)
    assert {name: set(runner.batches) for name, runner in opened.items()} == {
        "fp16.plan": {BATCH},
        "int8.plan": {BATCH},
        "mixed.plan": {BATCH},
        "fp16-batch-1.plan": {1},
    }
    assert all(runner.closed for runner in opened.values())
    assert gpu.open_streams == 0
    assert timed.warnings == (
        "the state of the GPU is not known: nvidia-ml-py and nvidia-smi are not installed, or may not ask the driver",
    )


def test_a_machine_without_the_drivers_library_is_told_so() -> None:
    with pytest.raises(UnsupportedTargetError, match=r"no NVIDIA driver \(libno-such-driver\.so\.1\)"):
        require_driver("libno-such-driver.so.1")
