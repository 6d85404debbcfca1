"""A TensorRT module that pretends: a plan is the text ``double`` and its engine doubles input ``x``, (1 to 4, 3), float32, on the fake GPU.

The engine of ``double, some`` gives out only the rows that begin with a positive number; that of ``double, profiles`` has three profiles.

Its objects have only names of USED_API (a test checks that), so code that runs on it asks nothing else of TensorRT.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace

import numpy as np

from tests.engine_builder.fake_gpu import FakeGpu

RANGE = ((1, 3), (2, 3), (4, 3))  # lowest, usual, highest
RANGES = (RANGE, ((3, 3), (8, 3), (8, 3)), ((8, 3), (16, 3), (32, 3)))
Ranges = Sequence[tuple[tuple[int, int], ...]]


class ILogger:
    Severity = SimpleNamespace(__members__={"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2, "INFO": 3, "VERBOSE": 4})

    def log(self, severity: int, text: str) -> None:
        raise NotImplementedError


class IProfiler:
    def report_layer_time(self, name: str, milliseconds: float) -> None:
        raise NotImplementedError


class IOutputAllocator:
    def reallocate_output_async(self, name: str, memory: int, size: int, alignment: int, stream: int) -> int:
        raise NotImplementedError

    def notify_shape(self, name: str, shape: tuple[int, ...]) -> None:
        raise NotImplementedError


class Runtime:
    def __init__(self, log: ILogger, gpu: FakeGpu) -> None:
        self._log, self._gpu = log, gpu

    def deserialize_cuda_engine(self, plan: bytes) -> ICudaEngine | None:
        if plan.startswith(b"double"):
            ranges = RANGES if plan == b"double, profiles" else (RANGE,)
            return ICudaEngine(self._gpu, (-1, 3) if plan == b"double, some" else None, ranges, room=plan != b"double, huge")
        self._log.log(1, "Serialization assertion failed: magic tag")
        return None


class ICudaEngine:
    num_io_tensors = 3

    def __init__(self, gpu: FakeGpu, output: tuple[int, ...] | None, ranges: Ranges, *, room: bool) -> None:
        self._gpu, self._output, self._ranges, self._room = gpu, output, ranges, room
        self.num_optimization_profiles = len(ranges)
        self.streamable_weights_size = 4096
        self.weight_streaming_budget_v2 = 4096

    def create_execution_context(self) -> IExecutionContext | None:
        return IExecutionContext(self._gpu, self._output, self._ranges) if self._room else None

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector()

    def get_tensor_name(self, index: int) -> str:
        return ("x", "y", "sizes")[index]

    def get_tensor_mode(self, name: str) -> str:
        return "output" if name == "y" else "input"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return {"x": (-1, 3), "y": (-1, 3), "sizes": (2,)}[name]

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name="INT64" if name == "sizes" else "FLOAT")

    def get_tensor_location(self, name: str) -> str:
        return "host" if name == "sizes" else "device"

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return list(self._ranges[profile])


class IExecutionContext:
    profiler: IProfiler | None = None

    def __init__(self, gpu: FakeGpu, output: tuple[int, ...] | None, ranges: Ranges) -> None:
        self._gpu, self._output, self._ranges = gpu, output, ranges
        self._range = ranges[0]
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, IOutputAllocator] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if name == "sizes":
            return True
        self._shape = shape
        return len(shape) == 2 and self._range[0][0] <= shape[0] <= self._range[2][0] and shape[1] == 3

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self._range, self._shape = self._ranges[profile], ()
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._output or self._shape

    def infer_shapes(self) -> list[str]:
        return [] if "sizes" in self._addresses else ["sizes"]

    def get_max_output_size(self, name: str) -> int:
        return 12  # a row

    def set_output_allocator(self, name: str, allocator: IOutputAllocator) -> bool:
        self._allocators[name] = allocator
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        size = int(np.prod(self._shape)) * 4
        rows = self._gpu.memory[self._addresses["x"]][:size].view(np.float32).reshape(self._shape) * 2
        if "y" in self._allocators:
            rows = rows[rows[:, 0] > 0]
            address = self._allocators["y"].reallocate_output_async("y", 0, rows.nbytes, 256, stream)
            if not address:
                return False
            self._allocators["y"].notify_shape("y", rows.shape)
            self._addresses["y"] = address
        self._gpu.memory[self._addresses["y"]][: rows.nbytes] = np.frombuffer(rows.tobytes(), dtype=np.uint8)
        self._gpu.now_ms += 1.0
        if self.profiler is not None:
            self.profiler.report_layer_time("kernel1", 0.75)
            self.profiler.report_layer_time("move", 0.25)
        return True


class EngineInspector:
    execution_context: IExecutionContext | None = None

    def get_engine_information(self, form: str) -> str:
        assert form == "json"
        layers = [
            {"Name": "kernel1", "LayerType": "gemm", "Metadata": "[ONNX Layer: mul]\x1f[ONNX Layer: relu]"},
            {"Name": "move", "LayerType": "kgen", "Metadata": ""},
        ]
        return json.dumps({"Layers": layers})


def fake_tensorrt(gpu: FakeGpu) -> ModuleType:
    """Return a fresh module whose engines run on this GPU."""
    module = ModuleType("fake_tensorrt")
    module.__dict__.update(
        __version__="11.4.0",
        ILogger=ILogger,
        IProfiler=IProfiler,
        IOutputAllocator=IOutputAllocator,
        Runtime=lambda log: Runtime(log, gpu),
        TensorIOMode=SimpleNamespace(INPUT="input"),
        TensorLocation=SimpleNamespace(HOST="host"),
        LayerInformationFormat=SimpleNamespace(JSON="json"),
    )
    return module
