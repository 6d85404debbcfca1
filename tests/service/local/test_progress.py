from __future__ import annotations

import io
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence

from service.local.progress import ProgressBar, ProgressLines, ProgressView, TrialLines, progress_view


class Terminal(io.StringIO):
    """A stream that says that somebody is looking."""

    def isatty(self) -> bool:
        return True


class ProgressViewContract(ABC):
    """What the command line relies on of a view."""

    @abstractmethod
    def view(self, stream: io.StringIO) -> ProgressView:
        """Return a view that writes to the stream."""

    def shown(self, *updates: tuple[float, str], lines: Sequence[str] = ()) -> str:
        stream = io.StringIO()
        with self.view(stream) as view:
            for fraction, message in updates:
                view.update(fraction, message)
            for line in lines:
                view.line(line)
        assert not stream.closed
        return stream.getvalue()

    def test_share_and_message_are_shown(self) -> None:
        found = self.shown((0.25, "ranges"))
        assert re.search(r"\b25%", found)
        assert "ranges" in found

    def test_lines_stay_whole_and_in_order(self) -> None:
        found = self.shown((0.5, "search"), lines=["one", "two"])
        assert [line for line in re.split(r"[\r\n]", found) if line in {"one", "two"}] == ["one", "two"]

    def test_every_stage_is_named(self) -> None:
        found = self.shown((0.1, "ranges"), (0.1, "sensitivity"), (1.0, "report"))
        assert all(word in found for word in ("ranges", "sensitivity", "report"))
        assert "100%" in found


class TestProgressBar(ProgressViewContract):
    def view(self, stream: io.StringIO) -> ProgressView:
        return ProgressBar(stream)


class TestProgressLines(ProgressViewContract):
    def view(self, stream: io.StringIO) -> ProgressView:
        return ProgressLines(stream)


def test_pipe_gets_a_line_for_each_stage_and_every_twentieth() -> None:
    stream = io.StringIO()
    with ProgressLines(stream) as view:
        for percent in range(101):
            view.update(percent / 100, "ranges: batch" if percent < 50 else "search: trial")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "  0% ranges: batch"
    assert lines[-1] == "100% search: trial"
    assert 20 <= len(lines) <= 22
    assert "\r" not in stream.getvalue()


def test_pipe_is_not_told_the_same_twice() -> None:
    stream = io.StringIO()
    with ProgressLines(stream) as view:
        view.update(1.0, "report: done")
        view.update(1.0, "report: done")
    assert stream.getvalue() == "100% report: done\n"


def test_pipe_is_told_what_is_new_after_a_while_even_if_little_progress_was_made() -> None:
    stream, seconds = io.StringIO(), iter(range(0, 300, 10))
    with ProgressLines(stream, clock=lambda: next(seconds)) as view:
        view.update(0.05, "baseline: built")
        view.update(0.051, "baseline: trying bf16")  # 10 s later
        view.update(0.052, "baseline: probed 1 of 24 blocks")
        view.update(0.052, "baseline: probed 1 of 24 blocks")
        view.update(0.052, "baseline: probed 1 of 24 blocks")
    assert stream.getvalue().splitlines() == ["  5% baseline: built", "  5% baseline: probed 1 of 24 blocks"]


def test_terminal_gets_a_bar_that_never_goes_back() -> None:
    stream = Terminal()
    with progress_view(stream) as view:
        assert isinstance(view, ProgressBar)
        view.update(0.5, "ranges")
        view.update(0.25, "ranges")
        view.line("a line that stays")
    assert " 50%|" in stream.getvalue()
    assert " 25%|" not in stream.getvalue()
    assert "a line that stays\n" in stream.getvalue()


def test_each_trial_is_told_once() -> None:
    stream = io.StringIO()
    trials = [{"index": index, "order": "loss", "low_layers": index} for index in range(3)]
    with ProgressLines(stream) as view:
        lines = TrialLines(lambda text: view.line("     " + text))
        for count in (1, 3, 2, 3):
            lines.show(trials[:count])
    assert [line.split(":")[0].strip() for line in stream.getvalue().splitlines()] == ["trial 0", "trial 1", "trial 2"]
