"""How far a job is, for people: a bar on a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self, TextIO

from tqdm import tqdm

from service.worker.trial_line import trial_line

_LINE_EVERY = 0.05
_SILENT_SECONDS = 20.0  # at most, while there is something new to tell


class ProgressView(Protocol):
    """Shows the progress of one job; used with ``with``."""

    def update(self, fraction: float, message: str) -> None:
        """Show how much is done (0..1) and what is being done."""

    def line(self, text: str) -> None:
        """Show a line that stays."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class _Bar(tqdm):  # type: ignore[type-arg]  # it takes no argument when the program runs
    """One without the thread that watches for bars that stand still: each of ours is drawn whenever there is something new."""

    monitor_interval = 0


class ProgressBar:
    """A bar that redraws itself, for a terminal."""

    def __init__(self, stream: TextIO) -> None:
        """Draw on ``stream``."""
        self._bar = _Bar(total=1.0, file=stream, bar_format="{percentage:3.0f}%|{bar:30}| {elapsed} {desc}", dynamic_ncols=True)

    def update(self, fraction: float, message: str) -> None:
        """Redraw; the bar never goes back."""
        self._bar.set_description_str(message, refresh=False)
        self._bar.update(max(0.0, fraction - self._bar.n))
        self._bar.refresh()

    def line(self, text: str) -> None:
        """Write a line above the bar."""
        self._bar.write(text, file=self._bar.fp)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.close()


class ProgressLines:
    """Plain lines, for a pipe or a log: one where the message changes its first word, one every 5%, and what is new after 20 seconds."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        """Write to ``stream``; ``clock`` gives seconds."""
        self._stream = stream
        self._clock = clock
        self._shown = -1.0
        self._kind = self._message = ""
        self._at = clock()

    def update(self, fraction: float, message: str) -> None:
        """Write a line if there is enough new to tell."""
        kind, now = message.partition(":")[0], self._clock()
        is_late = message != self._message and now >= self._at + _SILENT_SECONDS
        if kind == self._kind and fraction < min(1.0, self._shown + _LINE_EVERY) and not is_late:
            return
        if is_late or (kind, fraction) != (self._kind, self._shown):
            self._kind, self._shown, self._message, self._at = kind, fraction, message, now
            self.line(f"{fraction:4.0%} {message}")

    def line(self, text: str) -> None:
        """Write a line."""
        self._stream.write(text + "\n")
        self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stream.flush()


class TrialLines:
    """Tells each trial once, however often the list is shown."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        """Give each line to ``tell``."""
        self._tell = tell
        self._told = 0

    def show(self, trials: Sequence[Mapping[str, object]]) -> None:
        """Write a line for every trial that is new."""
        for trial in trials[self._told :]:
            self._tell(trial_line(trial))
        self._told = max(self._told, len(trials))


def progress_view(stream: TextIO) -> ProgressView:
    """Return the view that suits the stream."""
    return ProgressBar(stream) if stream.isatty() else ProgressLines(stream)
