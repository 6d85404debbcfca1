"""Median time of every kernel of an ONNX Runtime engine, from the runtime's own profiler."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from engine_builder.backends.kernels import KernelTime

MIN_RUNS, MAX_RUNS = 6, 24
SECONDS = 1.0  # of runs, once there are MIN_RUNS
_SUFFIX = "_kernel_time"
# What the runtime's optimizer, or our own rewriting, adds to the name of a node, or of the tensor it names a node after, and what the
# product of a layer that rounds its inputs has behind the layer's name.
_ADDED = re.compile(r"(_token_\d+|_nchwc|_quant|_MatMulInteger|_MatMulNBits|_fused|_transformed_\d+|_kept_float)+$")


def profiled_kernels(
    engine: Path, feeds: Mapping[str, NDArray[np.generic]], *, options: onnxruntime.SessionOptions, scratch: Path
) -> tuple[KernelTime, ...]:
    """Return the kernels in the order in which they run.

    Each has the name of a node or of its output tensor, as the engine file has it and as the runtime calls it.

    The profiler itself costs time in every kernel, so they add up to more than the engine's latency; differences between engines count.

    Args:
        engine: The engine file.
        feeds: Inputs of one run.
        options: As the engine is timed with.
        scratch: Where the profile is written and removed again.
    """
    options.enable_profiling = True
    options.profile_file_prefix = str(scratch / "profile")
    session = onnxruntime.InferenceSession(str(engine), options, providers=["CPUExecutionProvider"])
    start = time.perf_counter()
    for index in range(MAX_RUNS):
        if index >= MIN_RUNS and time.perf_counter() - start > SECONDS:
            break
        session.run(None, dict(feeds))
    path = Path(session.end_profiling())
    events = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    found: dict[str, list[float]] = {}
    about: dict[str, Mapping[str, object]] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_SUFFIX):
            known = name.removesuffix(_SUFFIX).removeprefix("fused ")
            found.setdefault(known, []).append(float(event["dur"]) / 1e3)
            about.setdefault(known, event.get("args", {}))
    return tuple(_kernel(name, float(np.median(values)), about[name]) for name, values in found.items())


def _kernel(name: str, milliseconds: float, about: Mapping[str, object]) -> KernelTime:
    read, written = (_tensors(about.get(f"{side}_type_shape")) for side in ("input", "output"))
    elements = sum(math.prod(shape) for _, shape in written)
    return KernelTime(_names(name), milliseconds, str(about.get("op_name", "")), read[0][0] if read else "", elements)


def _tensors(listed: object) -> list[tuple[str, Sequence[int]]]:
    """Return the element type and the shape of each tensor that an event lists."""
    return [item for tensor in listed for item in tensor.items()] if isinstance(listed, list) else []


def _names(name: str) -> tuple[str, ...]:
    """Return the runtime's name and what it was made of; both, since a user's own name may end like an added one."""
    return tuple(dict.fromkeys((name, _ADDED.sub("", name))))
