"""TensorRT-RTX's callbacks: its one logger per process, progress with a way to cancel, and the errors it records."""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Protocol

from engine_builder.errors import UnsupportedTargetError

_NO_DRIVER = ("catchCudaError", "cudaError 35")  # follows any message where there is no driver, and says nothing about the model


@dataclass(slots=True)
class Messages:
    """What the builder said during one build; a build holds ``lock`` for as long as it runs."""

    every: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def clear(self) -> None:
        """Forget the last build."""
        self.every.clear()
        self.errors.clear()


@dataclass(frozen=True, slots=True)
class Session:
    """What lives as long as the process: TensorRT keeps pointers to both, and takes only one logger."""

    logger: object
    recorder: object
    messages: Messages


class Monitor(Protocol):
    """What watches a build."""

    cancelled: bool
    failure: Exception | None


def tensorrt_rtx_module() -> ModuleType:
    """Return the package.

    Raises:
        UnsupportedTargetError: It is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module("tensorrt_rtx")
    except (ImportError, OSError) as exc:
        raise UnsupportedTargetError(
            f"target: found no usable tensorrt_rtx package ({exc}), expected it for the target 'tensorrt-rtx'",
            fix="install onnx-trt-optimizer[rtx], which needs Linux on x86-64 or arm64",
        ) from exc


def without_driver_noise(message: str) -> str:
    """Return a message of the builder in one line, without what it adds to every error where there is no driver."""
    return " ".join(line.strip() for line in message.splitlines() if not any(text in line for text in _NO_DRIVER))


@functools.cache
def session() -> Session:
    """Return the process's logger and error recorder. TensorRT knows one logger per process and refuses another, hence the cache.

    Raises:
        UnsupportedTargetError: The package is not installed.
    """
    trt = tensorrt_rtx_module()
    messages = Messages()
    severe = (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR)

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]  # the package has no types
        """Keeps every message."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: object, message: str) -> None:
            messages.every.append(message)
            if severity in severe and (text := without_driver_noise(message)):
                messages.errors.append(text)

    return Session(Logger(), _new_recorder(trt, messages.errors), messages)


def new_monitor(on_step: Callable[[str], bool]) -> Monitor:
    """Return a progress monitor that calls ``on_step`` with a phase's name at each step, and stops the build when it returns False.

    An exception of ``on_step`` stops the build too and is kept in ``failure``, since it may not cross the builder.
    """
    trt = tensorrt_rtx_module()

    class Watch(trt.IProgressMonitor):  # type: ignore[misc, name-defined]  # the package has no types
        """Passes steps on."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.cancelled = False
            self.failure: Exception | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Nothing starts here that a step would not tell."""

        def phase_finish(self, phase_name: str) -> None:
            """Nor ends."""

        def step_complete(self, phase_name: str, step: int) -> bool:
            if self.cancelled or self.failure is not None:
                return False
            try:
                self.cancelled = not on_step(phase_name)
            except Exception as exc:  # re-raised by the build; an exception may not cross the C++ code
                self.failure = exc
            return not self.cancelled and self.failure is None

    return Watch()


def _new_recorder(trt: ModuleType, errors: list[str]) -> object:
    class Recorder(trt.IErrorRecorder):  # type: ignore[misc, name-defined]  # the package has no types
        """Keeps (code, description) pairs until TensorRT clears them, and the descriptions until the next build."""

        def __init__(self) -> None:
            trt.IErrorRecorder.__init__(self)
            self._found: list[tuple[object, str]] = []

        def num_errors(self) -> int:
            return len(self._found)

        def get_error_code(self, index: int) -> object:
            return self._found[index][0]

        def get_error_desc(self, index: int) -> str:
            return self._found[index][1]

        def has_overflowed(self) -> bool:
            return False

        def clear(self) -> None:
            self._found.clear()

        def report_error(self, code: object, description: str) -> bool:
            self._found.append((code, description))
            if text := without_driver_noise(description):
                errors.append(text)
            return True

    return Recorder()
