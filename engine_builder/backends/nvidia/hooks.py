"""What TensorRT calls back: the logger, the error recorder, and the monitor through which a build reports progress and is stopped.

They subclass TensorRT's own classes, so they are made by functions that are given the module: ``tensorrt``, or ``tensorrt_rtx``, which has
the same interface.
"""

from __future__ import annotations

import functools
import logging
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Protocol

logger = logging.getLogger(__name__)

DRIVER_FIX = "check with nvidia-smi that there is a GPU and that its driver is new enough for this TensorRT (r580 for the CUDA 13 packages)"

_KEPT_LINES = 2000
_SHOWN_ERRORS = 5
_SEVERE = ("ERROR", "INTERNAL_ERROR")
_NO_DRIVER = ("catchCudaError", "cudaError 35")  # follows any message where there is no driver, and says nothing about the model
_PLACE = re.compile(r"\.? In \w+ at /_src/[\w/.]+:\d+")
# Of every quantized convolution whose scales are FP16, which is how they have to be: the builder computes the same with them in float32.
_HARMLESS = ("Converting conv activation scales to fp32", "Converting conv weight scales to fp32")
_LEVELS = {"VERBOSE": logging.DEBUG, "INFO": logging.DEBUG, "WARNING": logging.WARNING, "ERROR": logging.ERROR}


@dataclass(slots=True)
class Messages:
    """What TensorRT said, oldest first; the logger and the recorder write, a build reads and clears, and holds ``lock`` while it runs."""

    lines: list[tuple[str, str]] = field(default_factory=list)  # (severity, text)
    errors: list[str] = field(default_factory=list)  # of the recorder
    lock: threading.Lock = field(default_factory=threading.Lock)

    def complaints(self) -> str:
        """Return the last errors, each in one line and once; empty if there are none."""
        said = [text for severity, text in self.lines if severity in _SEVERE]
        return "\n".join(list(dict.fromkeys(filter(None, map(without_driver_noise, (*said, *self.errors)))))[-_SHOWN_ERRORS:])

    def clear(self) -> None:
        """Forget everything."""
        self.lines.clear()
        self.errors.clear()


def without_driver_noise(message: str) -> str:
    """Return a message in one line, without what TensorRT adds to every error where there is no driver, and places in its source."""
    kept = " ".join(line.strip() for line in message.splitlines() if not any(text in line for text in _NO_DRIVER))
    return _PLACE.sub("", kept).strip()


class TensorRtLogger(Protocol):
    """A ``trt.ILogger`` that keeps what it is told."""

    messages: Messages


class Monitor(Protocol):
    """A ``trt.IProgressMonitor``."""

    failure: BaseException | None  # what ``on_progress`` raised, which stopped the build


@functools.cache
def process_logger(trt: ModuleType) -> TensorRtLogger:
    """Return the one logger of this process: TensorRT keeps the first it is given, and complains about any other."""
    names = {int(severity): name for name, severity in trt.ILogger.Severity.__members__.items()}

    class Logger(trt.ILogger):  # type: ignore[misc,name-defined]  # a class of a module that need not be installed where types are checked
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages = Messages()

        def log(self, severity: object, text: str) -> None:
            name = names.get(int(severity), "ERROR")  # type: ignore[call-overload]  # a severity of the module
            is_noise = (name in _SEVERE and not without_driver_noise(text)) or any(said in text for said in _HARMLESS)
            logger.log(logging.DEBUG if is_noise else _LEVELS.get(name, logging.ERROR), "%s", text)
            if name != "VERBOSE" or text.startswith("Layers:"):
                self.messages.lines.append((name, text))
                del self.messages.lines[:-_KEPT_LINES]

    made: TensorRtLogger = Logger()
    return made


@functools.cache
def process_recorder(trt: ModuleType) -> object:
    """Return the one ``trt.IErrorRecorder`` of this process, which adds to the logger's messages; it outlives whatever reports to it."""
    messages = process_logger(trt).messages

    class Recorder(trt.IErrorRecorder):  # type: ignore[misc,name-defined]  # as above
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

        def report_error(self, code: object, text: str) -> bool:
            self._found.append((code, text))
            messages.errors.append(text)
            return True  # the function that reports it must end

    recorder: object = Recorder()
    return recorder


def progress_monitor(trt: ModuleType, on_progress: Callable[[float, str], None]) -> Monitor:
    """Return what watches a build.

    Args:
        trt: The module.
        on_progress: Is told how much of the outermost phase is done (0 to 1, never less than before) and the name of the phase. What it
            raises ends the build within milliseconds and is kept in ``failure``, since it may not cross the C++ code.
    """

    class Watch(trt.IProgressMonitor):  # type: ignore[misc,name-defined]  # as above
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.failure: BaseException | None = None
            self._steps: dict[str, int] = {}
            self._outermost: str | None = None
            self._share = 0.0

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self._steps[name] = max(steps, 1)
            if parent is None:
                self._outermost = name
            self._tell(name)

        def step_complete(self, name: str, step: int) -> bool:
            if name == self._outermost:
                self._share = max(self._share, min(1.0, (step + 1) / self._steps[name]))
                self._tell(name)
            return self.failure is None

        def phase_finish(self, name: str) -> None:
            self._steps.pop(name, None)

        def _tell(self, name: str) -> None:
            if self.failure is not None:
                return
            try:
                on_progress(self._share, name)
            except BaseException as exc:  # raised again by the build
                self.failure = exc

    monitor: Monitor = Watch()
    return monitor


class OutputAllocator(Protocol):
    """A ``trt.IOutputAllocator`` for one output whose size TensorRT knows only while it runs."""

    shape: tuple[int, ...] | None  # of the last run


def output_allocator(trt: ModuleType, room_for: Callable[[int], int]) -> OutputAllocator:
    """Return what gives an output memory when its size is known.

    Args:
        trt: The module.
        room_for: Returns the address of memory for so many bytes, 0 where there is none: then the run fails.
    """

    class Allocator(trt.IOutputAllocator):  # type: ignore[misc,name-defined]  # as above
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.shape: tuple[int, ...] | None = None

        def reallocate_output_async(self, name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            return room_for(size)

        def reallocate_output(self, name: str, memory: int, size: int, alignment: int) -> int:
            return room_for(size)

        def notify_shape(self, name: str, shape: Iterable[int]) -> None:
            self.shape = tuple(int(size) for size in shape)

    allocator: OutputAllocator = Allocator()
    return allocator


def layer_profiler(trt: ModuleType, found: dict[str, list[float]]) -> object:
    """Return a ``trt.IProfiler`` that appends the milliseconds of each layer to ``found``, by the layer's name."""

    class Profiler(trt.IProfiler):  # type: ignore[misc,name-defined]  # as above
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, name: str, milliseconds: float) -> None:
            found.setdefault(name, []).append(milliseconds)

    profiler: object = Profiler()
    return profiler
