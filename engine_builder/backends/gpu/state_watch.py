"""Reads a GPU's state beside a timing: in a thread of its own, so that no timed run ever waits for a reading.

Where a reading starts a process (nvidia-smi), which would take the processor from the runs, there is one before and one after, and none in
between. A state that cannot be read is not known; that ends nothing.
"""

from __future__ import annotations

import logging
import subprocess
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from engine_builder.backends.gpu.state import GpuInfo, GpuMonitor, GpuSample
from engine_builder.errors import EngineError

logger = logging.getLogger(__name__)

SECONDS = 0.1  # between two readings
# What a reading may raise: a driver without permission or with other words, a program that hangs.
UNREADABLE = (EngineError, OSError, ValueError, subprocess.TimeoutExpired)

T = TypeVar("T")


class StateWatch:
    """Reads while it is entered; ``latest`` may be called from any thread and returns at once."""

    def __init__(self, monitor: GpuMonitor | None, *, seconds: float = SECONDS) -> None:
        """Remember what to read.

        Args:
            monitor: None where the driver's tools are missing: then nothing is known.
            seconds: Between two readings.
        """
        self._monitor, self._seconds = monitor, seconds
        self._latest: GpuSample | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.why_unknown: str | None = None  # of the last reading that failed
        self.info: GpuInfo | None = None  # as it was when the watch began

    def latest(self) -> GpuSample | None:
        """Return the newest reading, None before the first one that succeeded."""
        return self._latest

    def __enter__(self) -> StateWatch:
        """Read once, and go on reading where that is cheap."""
        if self._monitor is not None:
            self.info = self._read(self._monitor.info)
            self._sample()
            if self._monitor.is_cheap:
                self._thread = threading.Thread(target=self._watch, name="gpu-state", daemon=True)
                self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop, and read once more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if kind is None and self._monitor is not None:
            self._sample()

    def _watch(self) -> None:
        while not self._stop.wait(self._seconds):
            self._sample()

    def _sample(self) -> None:
        assert self._monitor is not None
        found = self._read(self._monitor.sample)
        if found is not None:
            self._latest = found

    def _read(self, ask: Callable[[], T]) -> T | None:
        try:
            return ask()
        except UNREADABLE as exc:
            if self.why_unknown is None:
                logger.warning("the state of the GPU cannot be read: %s", exc)
            self.why_unknown = exc.detail if isinstance(exc, EngineError) else str(exc)
            return None
