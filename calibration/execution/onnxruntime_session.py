"""Opens ONNX Runtime sessions the one way that probes need them: few threads, no spinning, one arena for all.

Sessions compute on the CPU unless they are asked for another provider, which only probes do: what an engine's accuracy or time is measured
with is opened elsewhere. On CUDA, products are of float32 numbers in full, not of TF32 ones with 10 bits of mantissa, which would drown
the finite differences; and convolutions take the one algorithm that cuDNN always has, since one that is found by trying out may be
another one in the next session, and differ in the last bits from the float pass that its outputs are compared with.
"""

from __future__ import annotations

import functools
import logging
import resource
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from calibration.errors import CalibrationError
from calibration.execution.provider import Provider
from calibration.onnx_model.weights_in_file import serialized
from calibration.process.memory import TRIM_BYTES, return_free_memory

logger = logging.getLogger(__name__)

Array = NDArray[np.generic]

SPARE_BYTES = 1 << 16  # of a freed block that a smaller one takes: a larger rest stays free for others (by default up to half the block)


CUDA_OPTIONS = {
    "use_tf32": "0",
    "cudnn_conv_algo_search": "DEFAULT",
    "arena_extend_strategy": "kSameAsRequested",  # an arena a session, and sessions are many and small
}


class Piece:
    """A model, or a run of its nodes, that is ready to run. Thread-safe: ``run`` may be called from several threads at once."""

    def __init__(
        self, model: onnx.ModelProto | Path, *, threads: int = 1, provider: Provider = Provider.CPU, falls_back: bool = True
    ) -> None:
        """Open the session.

        Args:
            model: A model of less than 2 GB, or the path of one of any size.
            threads: Threads of one run.
            provider: What it is to compute with; where that cannot take the model, it is the CPU.
            falls_back: Whether it is; else that is an error. A single node for which the provider has no kernel always runs on the CPU.

        Raises:
            CalibrationError: ONNX Runtime cannot run the model.
        """
        _share_one_arena()
        source, folder = (str(model), None) if isinstance(model, Path) else serialized(model)
        self._session = _opened(source, threads, provider, folder, falls_back=falls_back)
        if not isinstance(source, str):
            let_go_of_bytes(self._session)
            if len(source) >= TRIM_BYTES:
                del source
                return_free_memory()
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self.outputs = tuple(value.name for value in self._session.get_outputs())

    @property
    def provider(self) -> Provider:
        """What the session computes with."""
        return Provider(self._session.get_providers()[0])

    def run(
        self,
        tensors: Mapping[str, Array],
        outputs: Sequence[str] | None = None,
        *,
        gives_back: bool = False,
        limit_seconds: float | None = None,
    ) -> dict[str, Array]:
        """Return the outputs by name.

        Args:
            tensors: At least the session's inputs; others are ignored.
            outputs: Fetch only these.
            gives_back: Return what is free of the shared arena to the system afterwards: the next runs, of any piece, take longer.
            limit_seconds: The run is ended after so long, behind the node that it is in then, also in a loop without an end.

        Raises:
            CalibrationError: ONNX Runtime failed on these values, or the run was ended.
        """
        names = self.outputs if outputs is None else tuple(outputs)
        options = ort.RunOptions() if gives_back or limit_seconds is not None else None
        if options is not None and gives_back:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        end = None if limit_seconds is None else threading.Timer(limit_seconds, setattr, (options, "terminate", True))
        if end is not None:
            end.daemon = True
            end.start()
        try:
            values = self._session.run(list(names), {name: tensors[name] for name in self.inputs}, options)
        except Exception as error:  # as above
            raise CalibrationError(
                f"ONNX Runtime {ort.__version__} failed in the middle of the model: {error}",
                fix="Run the model in onnxruntime on these samples once; the float model itself must accept them.",
            ) from error
        finally:
            if end is not None:
                end.cancel()
        return dict(zip(names, (np.asarray(value) for value in values), strict=True))


def return_free_activations() -> None:
    """Return to the system what is free of the arena that pieces share; for when those that were in use are gone, and others follow.

    A run returns only what is free while its own piece, and what it gave, are there.
    """
    Piece(_smallest_model()).run({"x": np.zeros(1, dtype=np.float32)}, gives_back=True)
    return_free_memory()


def probe_provider() -> Provider:
    """Return what probes are to compute with: CUDA where ONNX Runtime has it and a session opens with it, else the CPU.

    The CPU too where the address space is limited: CUDA reserves far more of it than it uses.
    """
    if Provider.CUDA.value not in ort.get_available_providers():
        return Provider.CPU
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        logger.info("probes run on the CPU: the address space is limited")
        return Provider.CPU
    return Piece(_smallest_model(), provider=Provider.CUDA).provider


def _opened(source: str | bytes, threads: int, provider: Provider, folder: Path | None, *, falls_back: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    if folder is not None:  # where the weights are that the bytes name
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # one buffer a session, each of another size, would leave the shared arena full of holes
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # a probe's Q/DQ pair is a rounding, never a kernel choice
    cpu = Provider.CPU.value
    if provider is Provider.CUDA:
        options.use_deterministic_compute = True
        providers = [(Provider.CUDA.value, CUDA_OPTIONS), cpu]
        try:
            session = ort.InferenceSession(source, options, providers=providers, enable_fallback=0)  # its own prints to stdout
            if falls_back or session.get_providers()[0] == provider.value:  # it opens without CUDA where libraries are missing
                return session
            raise _refused("its session opened without it")
        except CalibrationError:
            raise
        except Exception as error:  # ONNX Runtime raises a dozen classes without a common base
            if not falls_back:
                raise _refused(str(error)) from error
            logger.warning("a part of the model is probed on the CPU, since CUDA does not take it: %s", error)
            options.use_deterministic_compute = False
    try:
        return ort.InferenceSession(source, options, providers=[cpu])
    except Exception as error:  # as above
        raise CalibrationError(
            f"ONNX Runtime {ort.__version__} cannot run a part of the model: {error}",
            fix="Run the model in onnxruntime on the CPU once; an operator without a CPU kernel cannot be probed.",
        ) from error


def _refused(why: str) -> CalibrationError:
    return CalibrationError(
        f"CUDA does not take a part of the model: {why}",
        fix="Leave it to the CPU, or see whether this onnxruntime fits CUDA and cuDNN here.",
    )


def _smallest_model() -> onnx.ModelProto:
    """Return a model of one node, to see whether a provider works at all."""
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1,)) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "smallest", [x], [y])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)


def let_go_of_bytes(session: ort.InferenceSession) -> None:
    """Drop the serialized model that a session keeps, a copy of all its constants: it is for another provider to fall back to only."""
    session.disable_fallback()
    if hasattr(session, "_model_bytes"):
        session._model_bytes = None


@functools.cache
def _share_one_arena() -> None:
    """Register the process-wide allocator: hundreds of small sessions with an arena each would each keep their peak."""
    info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(info, ort.OrtArenaCfg(0, 1, -1, SPARE_BYTES))  # no cap, grow only as asked
