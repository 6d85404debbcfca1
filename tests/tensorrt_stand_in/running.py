"""The running half of the stand-in: a plan's model runs in the simulation that accuracy is predicted with, on memory of the stub driver."""

from __future__ import annotations

import ctypes
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from engine_builder.backends.onnxruntime.cpu import OrtCpuRunner
from tests.tensorrt_stand_in.building import device_name, rtx
from tests.tensorrt_stand_in.inspector_json import engine_information, in_profile, layer_names
from tests.tensorrt_stand_in.orders import DRIVER, Step, harm, orders
from tests.tensorrt_stand_in.plan_file import PlanFile, PlanTensor, read_plan, with_zeros

TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")
TensorLocation = SimpleNamespace(HOST="host", DEVICE="device")
LayerInformationFormat = SimpleNamespace(JSON="json", ONELINE="oneline")
_DTYPES: dict[str, Any] = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}
_TEMPORARY = "stand-in-"


class Runtime:
    """Loads plans."""

    engine_host_code_allowed = False

    def __init__(self, log: Any) -> None:
        self._log = log

    def deserialize_cuda_engine(self, data: bytes) -> ICudaEngine | None:
        """Return the engine; None for other bytes, another version or another GPU."""
        plan, told = read_plan(data), orders()
        if plan is None:
            self._say("Serialization assertion plan->header.magicTag == rt::kPLAN_MAGIC_TAG failed.")
            return None
        if (plan.header.version, plan.header.device) != (told.version, device_name()):
            self._say("The engine plan file is not compatible with this version of TensorRT or this device.")
            return None
        if harm(Step.LOAD, is_quantized=plan.header.is_quantized) is not None:
            self._say("Error Code 1: Cuda Runtime (out of memory)")
            return None
        return ICudaEngine(plan, self._log)

    def _say(self, text: str) -> None:
        self._log.log(rtx.ILogger.Severity.ERROR, text)


class ICudaEngine:
    """An engine."""

    def __init__(self, plan: PlanFile, log: Any) -> None:
        self.plan, self.written, self.log = plan, plan, log
        self.was_stripped = bool(plan.header.stripped)
        self.has_context = False
        self._budget = plan.header.streamable
        self.tensors = {tensor.name: tensor for tensor in plan.header.tensors}

    @property
    def num_io_tensors(self) -> int:
        """How many inputs and outputs it has."""
        return len(self.tensors)

    @property
    def num_optimization_profiles(self) -> int:
        """How many profiles it was built with, at least one."""
        return self.plan.header.profiles

    @property
    def streamable_weights_size(self) -> int:
        """Bytes of weights that need not be on the GPU; none unless it was built so."""
        return self.plan.header.streamable

    @property
    def weight_streaming_budget_v2(self) -> int:
        """Bytes of these weights that are on the GPU."""
        return self._budget

    @weight_streaming_budget_v2.setter
    def weight_streaming_budget_v2(self, value: int) -> None:
        if not self.has_context:
            self._budget = min(value, self.plan.header.streamable)

    def create_execution_context(self) -> IExecutionContext:
        """Return what runs it."""
        self.has_context = True
        return IExecutionContext(self)

    def create_serialization_config(self) -> Any:
        """Return how it is written: without its weights where it was built so."""
        return ISerializationConfig(without_weights=self.was_stripped)

    def serialize_with_config(self, config: Any) -> bytes:
        """Return the file."""
        return self.written.serialized() if config.flags else self.plan.serialized()

    def create_engine_inspector(self) -> EngineInspector:
        """Return what tells of its layers."""
        return EngineInspector(self)

    def get_tensor_name(self, index: int) -> str:
        """Return a tensor's name."""
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> str:
        """Return whether it is an input."""
        return str(TensorIOMode.INPUT if self.tensors[name].is_input else TensorIOMode.OUTPUT)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Return its sizes, -1 where they are open."""
        return self.tensors[name].shape

    def get_tensor_dtype(self, name: str) -> Any:
        """Return its type."""
        return getattr(rtx.DataType, self.tensors[name].dtype)

    def get_tensor_location(self, name: str) -> str:
        """Return where it lies."""
        return str(TensorLocation.HOST if self.tensors[name].is_on_host else TensorLocation.DEVICE)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        """Return the smallest, usual and largest sizes."""
        assert 0 <= profile < self.num_optimization_profiles
        found = self.tensors[name].profiles
        return list(found[profile]) if found else [self.tensors[name].shape] * 3


class ISerializationConfig:
    """How an engine is written."""

    def __init__(self, *, without_weights: bool) -> None:
        self.flags = {rtx.SerializationFlag.EXCLUDE_WEIGHTS} if without_weights else set()

    def clear_flag(self, flag: Any) -> bool:
        """Clear a flag."""
        self.flags.discard(flag)
        return True


class IExecutionContext:
    """Runs an engine: at once, whatever the stream, and moves the stub driver's clock by what the engine takes."""

    profiler: Any = None

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self.active_profile = 0
        self._sizes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, Any] = {}
        self._runner: OrtCpuRunner | None = None
        self._driver = ctypes.CDLL(DRIVER)
        self._driver.stub_work.argtypes = [ctypes.c_float]

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        """Go to another profile, which forgets all sizes; False where there is none."""
        if not 0 <= profile < self._engine.num_optimization_profiles:
            return False
        self.active_profile = profile
        self._sizes.clear()
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """Set the sizes of an input; False where the engine was not built for them."""
        least, _, greatest = self._engine.get_tensor_profile_shape(name, self.active_profile)
        fits = len(shape) == len(least) and all(low <= size <= high for low, size, high in zip(least, shape, greatest, strict=True))
        if fits:
            self._sizes[name] = tuple(shape)
        return fits

    def infer_shapes(self) -> list[str]:
        """Return the inputs that have no sizes yet."""
        return [
            one.name
            for one in self._engine.tensors.values()
            if one.is_input and one.name not in self._sizes and min(one.shape, default=0) < 0
        ]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Return the sizes of a tensor, -1 where they depend on the data."""
        if name in self._sizes:
            return self._sizes[name]
        tensor = self._engine.tensors[name]
        known = {
            symbol: size
            for one in self._engine.tensors.values()
            if one.name in self._sizes
            for symbol, size in zip(one.symbols, self._sizes[one.name], strict=True)
            if symbol
        }
        return tuple(known.get(symbol, size) for symbol, size in zip(tensor.symbols, tensor.shape, strict=True))

    def get_max_output_size(self, name: str) -> int:
        """Return no more than a guess: memory grows while the engine runs."""
        return 64

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        """Set who gives an output memory."""
        self._allocators[name] = allocator
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        """Set where a tensor lies."""
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        """Run; while a graph is captured, only note what it will take."""
        header = self._engine.plan.header
        if harm(Step.RUN, is_quantized=header.is_quantized) is not None:
            words = "an illegal memory access was encountered" if self._driver.stub_is_broken() else "out of memory"
            self._engine.log.log(rtx.ILogger.Severity.ERROR, f"IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime ({words})")
            return False
        self._driver.stub_work(_milliseconds(self._engine))
        if self._driver.stub_is_capturing():
            return True
        feeds = {one.name: self._read(one) for one in self._engine.tensors.values() if one.is_input}
        outputs = [one for one in self._engine.tensors.values() if not one.is_input]
        for one, array in zip(outputs, self._opened().run(feeds), strict=True):
            self._write(one, np.negative(array) if header.is_wrong else array, stream)
        if self.profiler is not None:
            names = [in_profile(name, self.active_profile) for name in layer_names(header.layers)]
            for name in names:
                self.profiler.report_layer_time(name, header.milliseconds / len(names))
        return True

    def _opened(self) -> OrtCpuRunner:
        if self._runner is None:
            with tempfile.TemporaryDirectory(prefix=_TEMPORARY) as folder:
                path = Path(folder) / "model.onnx"
                path.write_bytes(with_zeros(self._engine.plan).model)
                self._runner = OrtCpuRunner(path, threads=1, as_written=True)
        return self._runner

    def _read(self, tensor: PlanTensor) -> NDArray[Any]:
        shape, dtype = self.get_tensor_shape(tensor.name), np.dtype(_DTYPES[tensor.dtype])
        count = int(np.prod(shape, dtype=np.int64))
        raw = ctypes.string_at(self._addresses[tensor.name], count * dtype.itemsize)
        array: NDArray[Any] = np.frombuffer(raw, dtype=dtype).reshape(shape)
        return array

    def _write(self, tensor: PlanTensor, array: NDArray[np.generic], stream: int) -> None:
        data = np.ascontiguousarray(array).astype(_DTYPES[tensor.dtype]).tobytes()
        allocator = self._allocators.get(tensor.name)
        if allocator is not None:
            self._addresses[tensor.name] = allocator.reallocate_output_async(tensor.name, 0, len(data), 256, stream)
            allocator.notify_shape(tensor.name, array.shape)
        ctypes.memmove(self._addresses[tensor.name], data, len(data))


def _milliseconds(engine: ICudaEngine) -> float:
    """Return what one run takes: up to twice as long where weights are brought over."""
    size = engine.streamable_weights_size
    return engine.plan.header.milliseconds * (2.0 - engine.weight_streaming_budget_v2 / size if size else 1.0)


class EngineInspector:
    """Tells of layers."""

    execution_context: IExecutionContext | None = None

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine

    def get_engine_information(self, form: str) -> str:
        """Return the JSON of the version that was ordered."""
        assert form == LayerInformationFormat.JSON
        is_known = self.execution_context is not None and not self.execution_context.infer_shapes()
        return engine_information(
            self._engine.plan.header.layers, orders().inspector, are_sizes_known=is_known, profiles=self._engine.num_optimization_profiles
        )
