"""Runs a TensorRT engine on the GPU. Not yet run on a GPU; tested with a runtime that only pretends.

One execution context, one stream, one thread. Buffers on the GPU and page-locked arrays on the host are kept from call to call and grow
with the largest batch seen. Engines are native code: load none from a source that you do not trust.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from engine_builder.backends.engine_tensors import EngineTensor, EngineTensors, Shape
from engine_builder.backends.gpu.cuda_runtime import CudaRuntime, DeviceBuffer, Stream
from engine_builder.backends.kernels import Kernel
from engine_builder.backends.nvidia.hooks import DRIVER_FIX, OutputAllocator, layer_profiler, output_allocator, process_logger
from engine_builder.backends.nvidia.inspector import kernels_from_inspector
from engine_builder.backends.nvidia.stripped.refit import refit, weights_of
from engine_builder.errors import BuildError, EngineError

logger = logging.getLogger(__name__)

_REPORT = "report it with the job's log.txt, which holds all that TensorRT said"
_DTYPES: Mapping[str, np.dtype[np.generic]] = {
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "FP8": np.dtype(ml_dtypes.float8_e4m3fn),
    "INT8": np.dtype(np.int8),
    "UINT8": np.dtype(np.uint8),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "BOOL": np.dtype(np.bool_),
}


class TensorRtRunner:
    """An open engine. ``prepare`` sets inputs, shapes and addresses; then it is the ``Work`` that ``cuda_timing`` times."""

    def __init__(self, trt: ModuleType, engine: Path, cuda: CudaRuntime, *, weight_budget_bytes: int | None = None) -> None:
        """Load the plan, and put its weights back where it has none.

        Args:
            trt: The module.
            engine: The plan; beside one without weights is what ``stripped.refit`` says.
            cuda: The GPU.
            weight_budget_bytes: Most GPU memory for weights that can be streamed; None: all are on the GPU.

        Raises:
            BuildError: This TensorRT cannot load it, or its weights cannot be put back.
            EngineError: TensorRT does not start, or the GPU has too little memory for the engine.
        """
        self._name = engine.name
        self._trt = trt
        self._cuda = cuda
        log = process_logger(trt)
        self._messages = log.messages
        self._messages.clear()
        try:
            self._runtime: Any = trt.Runtime(log)
        except TypeError as exc:  # the bindings' way to say that the library returned nothing
            raise EngineError(f"TensorRT {trt.__version__} did not start: {self._messages.complaints() or exc}", fix=DRIVER_FIX) from exc
        self._runtime.engine_host_code_allowed = True  # else a version compatible plan, which carries a runtime of its own, does not load
        self._engine: Any = self._runtime.deserialize_cuda_engine(_bytes_of(engine))
        if self._engine is None:
            said = self._messages.complaints() or "no reason given"
            raise BuildError(
                f"{self._name}: TensorRT {trt.__version__} cannot load it on {cuda.device.name}: {said}",
                fix="load it with the TensorRT version and GPU type that it was built for, or build it again",
            )
        weights = weights_of(engine)
        if weights is not None:
            refit(trt, self._engine, weights, log, self._messages, self._name)
        if weight_budget_bytes is not None:
            self._stream_weights(weight_budget_bytes)  # a context would fix where weights are
        self._context: Any = self._engine.create_execution_context()
        if self._context is None:
            raise EngineError(
                f"{self._name}: no room on {cuda.device.name} to run it: {self._messages.complaints() or 'no reason given'}",
                fix="free GPU memory or build with smaller shapes",
            )
        names = [str(self._engine.get_tensor_name(index)) for index in range(self._engine.num_io_tensors)]
        is_input = {name: self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        self.inputs = tuple(name for name in names if is_input[name])
        self.outputs = tuple(name for name in names if not is_input[name])
        self.profile = 0  # the optimization profile in use, by its place in the plan
        self._stream = cuda.create_stream()
        self._buffers: dict[str, DeviceBuffer] = {}
        self._arrays: dict[str, NDArray[np.generic]] = {}
        self._open_sizes: dict[str, OutputAllocator] = {}  # of outputs whose sizes depend on the data

    def run(self, feeds: Mapping[str, NDArray[np.generic]]) -> tuple[NDArray[np.generic], ...]:
        """Return the outputs, in the engine's order, for one batch."""
        self.prepare(feeds)
        self.copy_in(self._stream)
        if not self.enqueue(self._stream.handle):
            raise EngineError(f"{self._name}: TensorRT refused to run: {self._messages.complaints()}", fix=_REPORT)
        self.copy_out(self._stream)
        self._stream.synchronize()
        return tuple(self._arrays[name].copy() for name in self.outputs)

    def prepare(self, feeds: Mapping[str, NDArray[np.generic]]) -> None:
        """Take the inputs to page-locked memory and set every shape and address; a plan need not have an input that nothing reads.

        Raises:
            EngineError: An input is missing, or has a type or shape that the engine was not built for, in any profile.
        """
        if self._context is None:
            raise EngineError(f"{self._name}: the engine is closed", fix="open it again")
        if not set(feeds) >= set(self.inputs):
            raise EngineError(f"{self._name}: inputs are {sorted(feeds)}, expected {sorted(self.inputs)}", fix="feed every input once")
        self._messages.clear()
        self._take_profile({name: feeds[name].shape for name in self.inputs})
        for name in self.inputs:
            value = feeds[name]
            self._check_dtype(name, value)
            if not self._context.set_input_shape(name, value.shape):
                allowed = [tuple(shape) for shape in self._engine.get_tensor_profile_shape(name, self.profile)]
                raise EngineError(
                    f"{self._name}: input {name!r} has shape {value.shape}, built for {allowed[0]} to {allowed[2]}",
                    fix="feed a shape in that range, or build with larger shapes",
                )
            self._place(name, value.shape)
            self._arrays[name][...] = value
        missing = self._context.infer_shapes()
        if missing:
            raise EngineError(f"{self._name}: TensorRT cannot infer shapes without {list(missing)}", fix=_REPORT)
        for name in self.outputs:
            shape = tuple(int(size) for size in self._context.get_tensor_shape(name))
            if min(shape, default=0) < 0:
                self._open_size(name)
            else:
                self._place(name, shape)

    def enqueue(self, stream: int) -> bool:
        """Queue one run."""
        return bool(self._context.execute_async_v3(stream))

    def copy_in(self, stream: Stream) -> None:
        """Queue the copies of the inputs to the GPU."""
        for name in self.inputs:
            if name in self._buffers:
                stream.copy_to_device(self._buffers[name], self._arrays[name])

    def copy_out(self, stream: Stream) -> None:
        """Queue the copies of the outputs to the host."""
        for name, allocator in self._open_sizes.items():
            if allocator.shape is None:
                raise EngineError(f"{self._name}: TensorRT did not tell the shape of output {name!r}", fix=_REPORT)
            if name not in self._arrays or self._arrays[name].shape != allocator.shape:
                self._arrays[name] = self._cuda.page_locked(allocator.shape, self._dtype(name))
        for name in self.outputs:
            if name in self._buffers:
                stream.copy_to_host(self._arrays[name], self._buffers[name])

    def layer_information(self, sizes: Mapping[str, tuple[int, ...]] | None = None) -> str:
        """Return the inspector's JSON, of all profiles; empty where it fails.

        Args:
            sizes: Of each input with an open axis, to tell formats at before anything was fed; by default those that the first profile
                calls ``opt``. After a run formats are told at the sizes that were fed last.
        """
        if not self._arrays:  # formats are not said at open sizes
            found = {name: (sizes or {}).get(name, self._ranges(name, 0)[1]) for name in self._open_inputs()}
            self._take_profile(found)
            for name, shape in found.items():
                self._context.set_input_shape(name, shape)
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = self._context
        try:
            return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))
        except (RuntimeError, ValueError) as exc:  # of the bindings; a name that is no UTF-8 is a ValueError
            logger.warning("%s: the engine inspector failed: %s", self._name, exc)
            return ""

    def kernels(self) -> tuple[Kernel, ...]:
        """Return the engine's kernels in the profile in use, as far as its inspector tells."""
        return kernels_from_inspector(self.layer_information(), self.profile)

    def tensors(self) -> EngineTensors:
        """Return the engine's inputs and outputs, and the sizes of its optimization profiles where an axis is free.

        Raises:
            EngineError: One has a type that no array can hold.
        """
        found = {name: self._tensor(name) for name in (*self.inputs, *self.outputs)}
        free = self._open_inputs()
        count = int(self._engine.num_optimization_profiles) if free else 0
        return EngineTensors(
            tuple(found[name] for name in self.inputs),
            tuple(found[name] for name in self.outputs),
            tuple({name: self._ranges(name, index) for name in free} for index in range(count)),
        )

    def layer_times(self, feeds: Mapping[str, NDArray[np.generic]], *, runs: int) -> dict[str, list[float]]:
        """Return the milliseconds of each layer of the engine in each run, by its name; the profiler keeps layers from overlapping."""
        found: dict[str, list[float]] = {}
        profiler = layer_profiler(self._trt, found)
        self._context.profiler = profiler
        try:
            for _ in range(runs + 1):
                self.run(feeds)
        finally:
            self._context.profiler = None
        return {name: values[1:] or values for name, values in found.items()}

    def close(self) -> None:
        """Free the engine's memory, the context first."""
        self._context = self._engine = self._runtime = None
        for buffer in self._buffers.values():
            buffer.free()
        self._buffers.clear()
        self._arrays.clear()
        self._open_sizes.clear()
        self._stream.close()

    def _stream_weights(self, budget: int) -> None:
        size = int(self._engine.streamable_weights_size)
        if budget >= size:  # which is how an engine starts: nothing is streamed
            return
        self._engine.weight_streaming_budget_v2 = budget
        found = int(self._engine.weight_streaming_budget_v2)
        if found != budget:
            said = self._messages.complaints() or "no reason given"
            raise EngineError(f"{self._name}: TensorRT streams weights with {found} bytes, {budget} asked for: {said}", fix=_REPORT)

    def _take_profile(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Go to the profile that takes these shapes, of several that whose ``opt`` is nearest; of a plan with one profile do nothing."""
        count = int(self._engine.num_optimization_profiles)
        if count <= 1:
            return
        names = [name for name in self._open_inputs() if name in shapes]
        distances = {}
        for index in range(count):
            ranges = {name: self._ranges(name, index) for name in names}
            if all(_is_within(shapes[name], ranges[name]) for name in names):
                distances[index] = sum(abs(size - best) for name in names for size, best in zip(shapes[name], ranges[name][1], strict=True))
        if not distances:
            found = ", ".join(f"{name!r} {shapes[name]}" for name in names)
            built = "; ".join(
                ", ".join(f"{name!r} {low} to {high}" for name in names for low, _, high in (self._ranges(name, index),))
                for index in range(count)
            )
            raise EngineError(
                f"{self._name}: no profile takes the shapes {found}; built for {built}",
                fix="feed shapes that one profile takes, or build with another profile",
            )
        chosen = min(distances, key=distances.__getitem__)
        if chosen == self.profile:
            return
        if not self._context.set_optimization_profile_async(chosen, self._stream.handle):
            raise EngineError(f"{self._name}: TensorRT refused profile {chosen}: {self._messages.complaints()}", fix=_REPORT)
        self._stream.synchronize()
        self.profile = chosen

    def _open_inputs(self) -> list[str]:
        return [name for name in self.inputs if min(self._engine.get_tensor_shape(name), default=0) < 0]

    def _ranges(self, name: str, profile: int) -> tuple[Shape, Shape, Shape]:
        """Return the least, best and greatest shape of an input in a profile."""
        least, best, greatest = (tuple(map(int, shape)) for shape in self._engine.get_tensor_profile_shape(name, profile))
        return least, best, greatest

    def _check_dtype(self, name: str, value: NDArray[np.generic]) -> None:
        wanted = self._dtype(name)
        if value.dtype != wanted:
            raise EngineError(f"{self._name}: input {name!r} is {value.dtype}, expected {wanted}", fix="convert the array")

    def _dtype(self, name: str) -> np.dtype[np.generic]:
        found = str(self._engine.get_tensor_dtype(name).name)
        if found not in _DTYPES:
            raise EngineError(f"{self._name}: tensor {name!r} is {found}, which no array can hold", fix="cast it in the model")
        return _DTYPES[found]

    def _tensor(self, name: str) -> EngineTensor:
        shape = tuple(None if size < 0 else int(size) for size in self._engine.get_tensor_shape(name))
        return EngineTensor(name, self._dtype(name).name, shape)

    def _place(self, name: str, shape: tuple[int, ...]) -> None:
        """Give a tensor memory for this shape; one that TensorRT reads on the host (a shape) needs none on the GPU."""
        array = self._arrays.get(name)
        if array is None or array.shape != shape:
            array = self._arrays[name] = self._cuda.page_locked(shape, self._dtype(name))
        if self._engine.get_tensor_location(name) == self._trt.TensorLocation.HOST:
            self._context.set_tensor_address(name, array.ctypes.data)
            return
        self._context.set_tensor_address(name, self._room(name, array.nbytes))

    def _room(self, name: str, size_bytes: int) -> int:
        """Return the address of the tensor's memory, which grows where it is too small."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size_bytes < size_bytes:
            if buffer is not None:
                self._stream.synchronize()
                buffer.free()
            buffer = self._buffers[name] = self._cuda.allocate(size_bytes)
        return buffer.address

    def _open_size(self, name: str) -> None:
        """Give an output as much memory as it may need, as far as TensorRT knows, and more while it runs."""
        if name in self._open_sizes:
            return
        self._room(name, max(int(self._context.get_max_output_size(name)), 0))
        self._open_sizes[name] = output_allocator(self._trt, lambda size: self._given(name, size))
        if not self._context.set_output_allocator(name, self._open_sizes[name]):
            raise EngineError(f"{self._name}: TensorRT takes no allocator for output {name!r}", fix=_REPORT)

    def _given(self, name: str, size_bytes: int) -> int:
        try:
            return self._room(name, size_bytes)
        except EngineError as exc:  # it may not cross TensorRT's code; without memory the run fails
            logger.error("%s: output %r: %s", self._name, name, exc.detail)
            return 0


def _is_within(shape: Shape, ranges: tuple[Shape, Shape, Shape]) -> bool:
    least, _, greatest = ranges
    return len(shape) == len(least) and all(low <= size <= high for low, size, high in zip(least, shape, greatest, strict=True))


def _bytes_of(plan: Path) -> bytes:
    try:
        return plan.read_bytes()
    except OSError as exc:
        raise BuildError(f"{plan.name}: the plan cannot be read: {exc.strerror}", fix="build it again") from exc
