"""The targets that engines can be built for."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

from engine_builder.backends.base import Backend
from engine_builder.backends.ort_cpu import OrtCpuBackend
from engine_builder.errors import UnsupportedTargetError

BACKENDS: Mapping[str, Callable[[], Backend]] = {"onnxruntime-cpu": OrtCpuBackend}


def targets() -> list[dict[str, object]]:
    """Return what this deployment can build for: target, precisions (the baseline's first), latency_source and gpus of each."""
    found = [backend().capabilities for backend in BACKENDS.values()]
    return [
        {
            "target": capabilities.target,
            "precisions": [precision.value for precision in (capabilities.baseline, *capabilities.low)],
            "latency_source": capabilities.latency_source,
            "gpus": [],
        }
        for capabilities in found
    ]


def backend_for(target: str) -> Backend:
    """Return the backend of a target.

    Raises:
        UnsupportedTargetError: This deployment has no such target.
    """
    if target not in BACKENDS:
        near = difflib.get_close_matches(target, BACKENDS, n=1)
        raise UnsupportedTargetError(
            f"target: {target!r} is unknown here, expected one of {', '.join(sorted(BACKENDS))}",
            fix=f"use {near[0]!r}" if near else "choose a target that GET /v1/targets lists",
        )
    return BACKENDS[target]()
