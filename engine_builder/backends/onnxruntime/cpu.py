"""The target ``onnxruntime-cpu``: the engine is the explicit model itself, run by ONNX Runtime's CPU provider.

Nothing of the machine is baked in: fusions to integer kernels happen when a session is opened, so the engine runs in any plain onnxruntime.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from calibration.graph.weightless import size_bytes
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, Precision
from calibration.onnx_model.external_data import all_tensors
from calibration.onnx_model.model_io import save_model
from calibration.process.memory import TRIM_BYTES, return_free_memory
from engine_builder.backends.base import Capabilities, Engine, RefusedNode, Runner, Source
from engine_builder.backends.engine_tensors import EngineTensors
from engine_builder.backends.kernels import KernelTime
from engine_builder.backends.onnxruntime.instruction_sets import instruction_sets
from engine_builder.backends.onnxruntime.integer_kernels import measured_kernels
from engine_builder.backends.onnxruntime.profile import profiled_kernels
from engine_builder.backends.triton_platform import TritonPlatform
from engine_builder.config.builder_options import BuilderSupport
from engine_builder.config.config import ShapeRange
from engine_builder.config.value_range import ValueRange
from engine_builder.errors import BuildError, EngineError
from engine_builder.qdq.checks.simulation import simulated
from engine_builder.qdq.dialects.onnxruntime import OnnxRuntimeDialect
from engine_builder.timing import Timing, TimingPlan
from engine_builder.workspace.external_files import external_files

_ERRORS_ONLY = 3
_LARGE_SAMPLE_BYTES = 1 << 20  # of inputs: from here on activations are tens of megabytes
_LARGE_CALL_BYTES = 8 << 20  # hundreds: calls that are not timed give them back, since smaller ones follow
_IN_MEMORY_BYTES = 1 << 30  # of weights, for a model that a session is given without a file; protobuf's limit is twice that


class OrtCpuRunner:
    """An open session with a fixed number of threads, sequential, that sleeps (does not spin) between runs."""

    def __init__(self, engine: Path, *, threads: int, as_written: bool = False, is_timed: bool = True) -> None:
        """Open the session.

        Args:
            engine: The model's file.
            threads: Of one run.
            as_written: Compute each Q/DQ pair and operator as the graph has them, and round to 16 bits wherever it does
                (``engine_builder.qdq.checks.simulation``): for models that stand for another runtime's engine.
            is_timed: Run as a user runs it. Else without the block of memory that the runtime lays out for each size of a call and each
                run at once: small networks take some hundredths longer, and large activations are there about once instead of twice.

        Raises:
            BuildError: ONNX Runtime cannot load the file.
        """
        options = session_options(threads)
        options.enable_mem_pattern = is_timed
        if as_written:
            _keep_as_written(options)
        self._name = engine.name
        self._is_timed = is_timed
        self.threads = threads
        self._session: onnxruntime.InferenceSession | None = None
        try:
            self._session = _as_written(engine, options) if as_written else _session(str(engine), options)
        except BuildError:
            raise
        except Exception as exc:  # onnxruntime's exceptions have no common base of their own
            _raise_if_out_of_memory(exc)
            raise BuildError(
                f"{engine.name}: onnxruntime {onnxruntime.__version__} cannot load it: {exc}",
                fix="see the runtime's message; report it if the model is valid",
            ) from exc
        self._is_large = engine.stat().st_size >= TRIM_BYTES
        if self._is_large:
            return_free_memory()

    def run(self, feeds: Mapping[str, NDArray[np.generic]]) -> tuple[NDArray[np.generic], ...]:
        """Return the outputs for one batch."""
        return self._run(feeds, gives_back=not self._is_timed and _feed_bytes(feeds) >= _LARGE_CALL_BYTES)

    def run_giving_back(self, feeds: Mapping[str, NDArray[np.generic]]) -> tuple[NDArray[np.generic], ...]:
        """Return the outputs for one batch, and give back what activations took, where it is much.

        For a run that no other follows soon; for one that those behind it are larger than; and for the first, after which the runtime takes
        one block for all of them instead, beside what the first took.
        """
        return self._run(feeds, gives_back=_feed_bytes(feeds) >= _LARGE_SAMPLE_BYTES)

    def _run(self, feeds: Mapping[str, NDArray[np.generic]], *, gives_back: bool) -> tuple[NDArray[np.generic], ...]:
        if self._session is None:
            raise EngineError(f"{self._name}: the engine is closed", fix="open it again")
        options: onnxruntime.RunOptions | None = None
        if gives_back:
            options = onnxruntime.RunOptions()
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        try:
            outputs = tuple(np.asarray(output) for output in self._session.run(None, dict(feeds), options))
        except Exception as exc:  # as above
            _raise_if_out_of_memory(exc)
            raise EngineError(
                f"{self._name}: onnxruntime {onnxruntime.__version__} failed: {exc}", fix="see the runtime's message"
            ) from exc
        if gives_back:
            return_free_memory()  # the C library keeps what the runtime frees
        return outputs

    def close(self) -> None:
        """Drop the session; of a large engine what it held goes back to the system, before another one is opened."""
        was_open, self._session = self._session is not None, None
        if was_open and self._is_large:
            return_free_memory()


class OrtCpuBackend:
    """Builds and runs engines on ONNX Runtime's CPU provider."""

    @property
    def capabilities(self) -> Capabilities:
        """FP32 baseline, INT8 layers, measured latency."""
        return Capabilities(
            "onnxruntime-cpu",
            Precision.FP32,
            (Precision.INT8, Precision.INT8_DYNAMIC, Precision.INT8_WEIGHTS, Precision.INT4_WEIGHTS),
            ONNXRUNTIME_CPU_SCHEME,
            OnnxRuntimeDialect(),
            Source.MEASURED,
            parallel_runs=True,
            runs_on_cpu=True,
            names_conversions=True,
            triton=TritonPlatform.ONNXRUNTIME,
            builder=BuilderSupport(why_not="its engine is the model itself, and nothing is built"),
        )

    def refused(self, explicit: Path) -> tuple[RefusedNode, ...]:
        """Return none: what is prepared runs in onnxruntime, which was tried (``calibration.graph_passes.normalize``)."""
        return ()

    def build(
        self,
        explicit: Path,
        output: Path,
        *,
        shapes: Mapping[str, ShapeRange] | None = None,
        values: Mapping[str, ValueRange] | None = None,
        profiles: Sequence[Mapping[str, ShapeRange]] = (),
        on_progress: Callable[[float, str], None] = lambda share, phase: None,
    ) -> Engine:
        """Write the explicit model to ``output``, byte for byte unless it has external data, and check that it loads; it takes any size."""
        data = output.with_name(output.name + ".data")
        try:
            _copy_model(explicit, output, data)
            OrtCpuRunner(output, threads=1).close()
        except BaseException:
            for path in (output, data):
                path.unlink(missing_ok=True)
            raise
        files = (data,) if data.exists() else ()
        return Engine(output, files, sum(path.stat().st_size for path in (output, *files)))

    def open(self, engine: Path, *, threads: int) -> Runner:
        """Return a session on the engine with this many threads."""
        if threads < 1:
            raise ValueError(f"threads is {threads}, expected at least 1")
        return OrtCpuRunner(engine, threads=threads)

    def timings(self, runners: Mapping[str, Runner], feeds: Mapping[str, NDArray[np.generic]], plan: TimingPlan) -> Mapping[str, Timing]:
        """Return the timing of each runner, measured by the plan's timer.

        An engine with one thread runs in the calling one: such engines are compared by the CPU time of that thread.
        """
        calls = {name: functools.partial(runner.run, feeds) for name, runner in runners.items()}
        is_alone = all(isinstance(runner, OrtCpuRunner) and runner.threads == 1 for runner in runners.values())
        compared_by = time.thread_time if is_alone else None
        return plan.timer(
            calls,
            seconds=plan.seconds,
            min_runs=plan.min_runs,
            max_runs=plan.max_runs,
            enough=plan.enough,
            warm_up=plan.warm_up,
            compared_by=compared_by,
        )

    def tensors(self, engine: Path) -> EngineTensors | None:
        """Return None: the engine is no plan, its file tells Triton all."""
        return None

    def environment(self) -> dict[str, object]:
        """Return the clock, the instruction sets and what the integer kernels do with large sums; all else is in every report."""
        clocks = {"clock": "time.perf_counter", "clock_of_ratios": "time.thread_time with one thread, else time.perf_counter"}
        return {**clocks, "instruction_sets": list(instruction_sets()), "integer_kernels": measured_kernels().value}

    def kernel_times(
        self, engine: Path, feeds: Mapping[str, NDArray[np.generic]], *, threads: int, scratch: Path
    ) -> tuple[KernelTime, ...]:
        """Return the kernels by the name of a node or of its output tensor."""
        return profiled_kernels(engine, feeds, options=session_options(threads), scratch=scratch)


def _copy_model(source: Path, target: Path, data: Path) -> None:
    """Copy a model file: byte for byte, or where it has external data, those into ``data``; they are never in memory."""
    names = external_files(source)
    if not names:
        shutil.copyfile(source, target)
        return
    if len(names) > 1:  # ours have one
        save_model(onnx.load_model(source), target, limit_bytes=0)
        return
    shutil.copyfile(source.parent / names[0], data)
    model = onnx.load_model(source, load_external_data=False)
    for tensor in all_tensors(model):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = data.name
    save_model(model, target)


def _feed_bytes(feeds: Mapping[str, NDArray[np.generic]]) -> int:
    return sum(array.nbytes for array in feeds.values())


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Return how every engine is run: a fixed number of threads, one operator at a time, no spinning, all of the runtime's fusions."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = _ERRORS_ONLY
    return options


def _session(model: str | bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _as_written(engine: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """Open the simulation of an explicit model."""
    model = onnx.load_model(engine)
    work = simulated(model)
    if work is model:
        return _session(str(engine), options)
    if sum(size_bytes(tensor) for tensor in work.graph.initializer) < _IN_MEMORY_BYTES:
        return _session(work.SerializeToString(), options)
    with tempfile.TemporaryDirectory() as folder:  # protobuf's limit: the weights go through a file beside the model
        path = Path(folder) / engine.name
        save_model(work, path)
        del model, work
        return _session(str(path), options)


def _keep_as_written(options: onnxruntime.SessionOptions) -> None:
    """Leave out what ONNX Runtime 1.32 gets wrong in graphs of the TensorRT dialect.

    Its rewriting of Q/DQ pairs takes FP16 and FP8 graphs for what it knows: EfficientNet-Lite0 in INT8 with FP16 between the layers then
    agreed with the float model on 0 of 10 pictures instead of 9, ResNet-20 in FP8 on 2 of 16 instead of all.
    """
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.disable_quant_qdq", "1")


def _raise_if_out_of_memory(exc: Exception) -> None:
    """Keep running out of memory what it is, so that the stage's memory limit is what gets reported."""
    if isinstance(exc, MemoryError) or "bad_alloc" in str(exc):
        raise MemoryError(str(exc)) from exc
