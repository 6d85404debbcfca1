"""Opens ONNX Runtime sessions the one way that probes need them: few threads, no spinning, one arena for all."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from calibration.errors import CalibrationError
from calibration.memory import TRIM_BYTES, return_free_memory

Array = NDArray[np.generic]

SPARE_BYTES = 1 << 16  # of a freed block that a smaller one takes: a larger rest stays free for others (by default up to half the block)


class Piece:
    """A model, or a run of its nodes, that is ready to run. Thread-safe: ``run`` may be called from several threads at once."""

    def __init__(self, model: onnx.ModelProto | Path, *, threads: int = 1) -> None:
        """Open the session.

        Args:
            model: A model of less than 2 GB, or the path of one of any size.
            threads: Threads of one run.

        Raises:
            CalibrationError: ONNX Runtime cannot run the model.
        """
        _share_one_arena()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        options.enable_mem_pattern = False  # one buffer a session, each of another size, would leave the shared arena full of holes
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.add_session_config_entry("session.disable_quant_qdq", "1")  # a probe's Q/DQ pair is a rounding, never a kernel choice
        source = str(model) if isinstance(model, Path) else model.SerializeToString()
        try:
            self._session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises a dozen classes without a common base
            raise CalibrationError(
                f"ONNX Runtime {ort.__version__} cannot run a part of the model: {error}",
                fix="Run the model in onnxruntime on the CPU once; an operator without a CPU kernel cannot be probed.",
            ) from error
        if not isinstance(source, str):
            let_go_of_bytes(self._session)
            if len(source) >= TRIM_BYTES:
                del source
                return_free_memory()
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self.outputs = tuple(value.name for value in self._session.get_outputs())

    def run(self, tensors: Mapping[str, Array], outputs: Sequence[str] | None = None, *, gives_back: bool = False) -> dict[str, Array]:
        """Return the outputs by name.

        Args:
            tensors: At least the session's inputs; others are ignored.
            outputs: Fetch only these.
            gives_back: Return what is free of the shared arena to the system afterwards: the next runs, of any piece, take longer.

        Raises:
            CalibrationError: ONNX Runtime failed on these values.
        """
        names = self.outputs if outputs is None else tuple(outputs)
        options = ort.RunOptions() if gives_back else None
        if options is not None:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        try:
            values = self._session.run(list(names), {name: tensors[name] for name in self.inputs}, options)
        except Exception as error:  # as above
            raise CalibrationError(
                f"ONNX Runtime {ort.__version__} failed in the middle of the model: {error}",
                fix="Run the model in onnxruntime on these samples once; the float model itself must accept them.",
            ) from error
        return dict(zip(names, (np.asarray(value) for value in values), strict=True))


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
