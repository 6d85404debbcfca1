"""Runs the tests marked gpu, each file in a process of its own: a crash or a hang costs one file, and what passed before it is known."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from calibration.plain_text import folders_to_hide, plain_text

MARK = "mark.gpu"
_LINE = re.compile(r"^(\S+::\S.*?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b(?: \((.*)\))?")
_KEPT = 60  # lines of what was printed last
_BAD = ("FAILED", "ERROR", "XPASS")


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """What came of one file's tests."""

    name: str  # below the folder of tests
    outcomes: dict[str, str]  # of each test that ended, by its name
    reasons: tuple[str, ...]  # why tests were skipped
    ended: str | None  # why it ended early: its time, a signal, an error of pytest
    printed: tuple[str, ...]  # the last lines, where not all is well; no folder of this machine is in them

    @property
    def has_failed(self) -> bool:
        """Whether a test failed or the file ended early."""
        return self.ended is not None or any(outcome in _BAD for outcome in self.outcomes.values())

    @property
    def in_words(self) -> str:
        """The counts, and what is wrong."""
        counts = Counter(self.outcomes.values())
        failed = [name for name, outcome in self.outcomes.items() if outcome in _BAD]
        parts = [", ".join(f"{count} {outcome.lower()}" for outcome, count in sorted(counts.items())) or "no test ended"]
        return "; ".join((*parts, *([self.ended] if self.ended else []), *failed, *self.reasons))


def files_with_gpu_tests(folder: Path) -> tuple[Path, ...]:
    """Return the files of a folder of tests that have some for a GPU."""
    return tuple(sorted(path for path in folder.rglob("test_*.py") if MARK in path.read_text(encoding="utf-8")))


def run_gpu_tests(file: Path, folder: Path, seconds: float) -> FileOutcome:
    """Run the tests marked gpu of a file.

    Args:
        file: Below ``folder``.
        folder: All tests; their configuration lies beside it.
        seconds: After which the file is ended, with whatever it started.
    """
    with tempfile.TemporaryDirectory(prefix="onnx-trt-optimizer-tests-") as scratch:
        command = [sys.executable, "-X", "faulthandler", "-m", "pytest", "-v", "-rs", "--tb=short", "-m", "gpu", "--color=no"]
        command += ["-p", "no:cacheprovider", "-p", "no:xdist", f"--basetemp={Path(scratch) / 'tests'}", str(file.resolve())]
        with (Path(scratch) / "printed").open("w+b") as printed:
            process = subprocess.Popen(
                command, cwd=folder.resolve().parent, stdin=subprocess.DEVNULL, stdout=printed, stderr=printed, start_new_session=True
            )
            try:
                status: int | None = process.wait(seconds)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                _end_group(process)
            printed.seek(0)
            text = printed.read().decode(errors="replace")
    return _told(str(file.relative_to(folder)), text, status, seconds, folder)


def _told(name: str, text: str, status: int | None, seconds: float, folder: Path) -> FileOutcome:
    found = [match for line in text.splitlines() if (match := _LINE.match(line))]
    outcomes = {match[1].split("::", 1)[1]: match[2] for match in found}
    reasons = dict.fromkeys(re.findall(r"^SKIPPED \[\d+\] \S+ (.*)$", text, re.MULTILINE))
    ended = _why(status, seconds, outcomes)
    is_well = ended is None and not any(outcome in _BAD for outcome in outcomes.values())
    hidden = folders_to_hide(folder.resolve().parent)
    printed = [] if is_well else [plain_text(line, hidden=hidden) for line in text.splitlines()[-_KEPT:]]
    return FileOutcome(name, outcomes, tuple(plain_text(reason, hidden=hidden) for reason in reasons), ended, tuple(printed))


def _why(status: int | None, seconds: float, outcomes: dict[str, str]) -> str | None:
    after = f" after {list(outcomes)[-1]}" if outcomes else ""
    if status is None:
        return f"ended at its limit of {seconds:.0f} s{after}"
    if status < 0:
        return f"ended by {signal.Signals(-status).name}{after}"
    return f"pytest ended with status {status}" if status > 1 or (status == 1 and not outcomes) else None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):  # all of it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
