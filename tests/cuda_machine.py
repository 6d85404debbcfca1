"""A machine that says that it has CUDA: sessions that are asked for there compute on the CPU, and may refuse, differ or be wrong."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from calibration.execution.provider import Provider

CPU, CUDA = Provider.CPU.value, Provider.CUDA.value
REAL = ort.InferenceSession
ROOT = Path(__file__).parents[1]
STAND_IN = """
import sys
from pathlib import Path

sys.path.remove(str(Path(__file__).parent))
del sys.modules["onnxruntime"]
import onnxruntime

real = onnxruntime.InferenceSession


def opened(source, options=None, providers=(), **rest):
    session = real(source, options, providers=["CPUExecutionProvider"])
    if len(providers) == 2:
        session.get_providers = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    return session


onnxruntime.InferenceSession = opened
onnxruntime.get_available_providers = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
"""

Array = NDArray[np.generic]
Wanted = Sequence[str | tuple[str, dict[str, str]]]


@dataclass
class Machine:
    """Opens sessions on the CPU that say they are on CUDA, unless it does not work, and keeps what was asked for."""

    works: bool = True
    silent: bool = False  # as ONNX Runtime is where CUDA's libraries are missing: the session opens without the provider
    refused: bytes = b"nothing has this in it"  # a model with these bytes is not taken
    computes: Callable[[Array], Array] | None = None  # what comes out on CUDA in the place of an output
    asked: list[Wanted] = field(default_factory=list)
    deterministic: list[bool] = field(default_factory=list)

    def open(self, source: str | bytes, options: ort.SessionOptions, providers: Wanted, **rest: object) -> ort.InferenceSession:
        self.asked.append(providers)
        self.deterministic.append(options.use_deterministic_compute)
        on_cuda = len(providers) == 2
        if on_cuda:
            assert rest == {"enable_fallback": 0}
            if isinstance(source, bytes) and self.refused in source:
                raise RuntimeError("could not find an implementation for the node")
        if on_cuda and not self.works and not self.silent:
            raise RuntimeError("no kernel image is available for execution on the device")
        session = REAL(source, options, providers=[CPU])
        if on_cuda and self.works:
            session.get_providers = lambda: [CUDA, CPU]
            if self.computes is not None:
                self._compute(session, self.computes)
        return session

    def count(self, provider: str) -> int:
        """Return how many sessions were asked for on a provider."""
        return sum((len(wanted) == 2) == (provider == CUDA) for wanted in self.asked)

    @staticmethod
    def _compute(session: ort.InferenceSession, computes: Callable[[Array], Array]) -> None:
        run = session.run
        session.run = lambda *arguments: [computes(value) for value in run(*arguments)]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Let this process be on such a machine."""
    found = Machine()
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(ort, "InferenceSession", found.open)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return found


def search_path(folder: Path, module: str = STAND_IN) -> str:
    """Return the PYTHONPATH of processes that find such an onnxruntime, or another stand-in, which is written into an empty folder."""
    (folder / "onnxruntime.py").write_text(module)
    return os.pathsep.join((str(folder), str(ROOT)))
