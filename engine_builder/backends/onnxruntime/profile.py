"""Median time of every kernel of an ONNX Runtime engine, from the runtime's own profiler."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from engine_builder.backends.kernels import KernelTime

RUNS = 24
_SUFFIX = "_kernel_time"
# What the runtime's optimizer adds to the name of a node, or of the tensor it names a node after, and what a dynamic layer's product has
# behind the layer's name.
_ADDED = re.compile(r"(_token_\d+|_nchwc|_quant|_MatMulInteger|_fused|_transformed_\d+)+$")


def profiled_kernels(
    engine: Path, feeds: Mapping[str, NDArray[np.generic]], *, options: onnxruntime.SessionOptions, scratch: Path
) -> tuple[KernelTime, ...]:
    """Return the kernels, each by the name of a node or of its output tensor, as the engine file has it and as the runtime calls it.

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
    for _ in range(RUNS):
        session.run(None, dict(feeds))
    path = Path(session.end_profiling())
    events = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    found: dict[str, list[float]] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_SUFFIX):
            found.setdefault(name.removesuffix(_SUFFIX).removeprefix("fused "), []).append(float(event["dur"]) / 1e3)
    return tuple(KernelTime(_names(name), float(np.median(values))) for name, values in found.items())


def _names(name: str) -> tuple[str, ...]:
    """Return the runtime's name and what it was made of; both, since a user's own name may end like an added one."""
    return tuple(dict.fromkeys((name, _ADDED.sub("", name))))
