"""The process of one stage, as whoever waits for it sees it, and the first way to get one: a new interpreter."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

from engine_builder.backends.gpu.lock import FOLDER_VARIABLE
from engine_builder.backends.nvidia.libraries.plugins import PLUGINS_VARIABLE
from engine_builder.workspace.tree_removal import remove_tree

NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1"}  # the runtime would start a thread at import, to tell its makers what it runs
_KEPT_VARIABLES = (
    "PATH",
    "HOME",
    "LANG",
    "TZ",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "SYSTEMROOT",
    FOLDER_VARIABLE,
    PLUGINS_VARIABLE,
)
_KEPT_PREFIXES = ("LC_", "OMP_", "OPENBLAS_", "MKL_", "KMP_", "MALLOC_", "CUDA_", "NVIDIA_")
IDLE = {"OPENBLAS_THREAD_TIMEOUT": "4"}  # numpy's threads sleep soon after a product; by default they spin on for tens of milliseconds


class StageProcess(Protocol):
    """A running process that leads a group of its own. Owned by one thread."""

    @property
    def stdout(self) -> IO[bytes]:
        """The reading end of its stdout, unbuffered."""

    @property
    def stderr(self) -> IO[bytes]:
        """The reading end of its stderr, unbuffered."""

    @property
    def group(self) -> int | None:
        """The id of its process group; None where it is not known here."""

    def has_ended(self) -> bool:
        """Whether the process has ended; its group may live on, and its id is not free yet.

        Raises:
            WarmParentLostError: Nobody can tell any more.
        """

    def kill_group(self) -> None:
        """Kill the process, unless it has ended, and what is left of its group. May be called again."""

    def wait(self) -> int:
        """Return the exit status, negative for a signal, once it has ended; ``kill_group`` came before. The id is free then.

        Raises:
            WarmParentLostError: Nobody can tell any more.
        """


class WarmParentLostError(Exception):
    """The process that the stage was forked from is gone, and the stage with it. It is no outcome of the stage, which may run again."""


class SpawnedProcess:
    """A stage in a new interpreter; a child of this process."""

    def __init__(self, stage: str, stdin: IO[bytes], scratch: Path) -> None:
        """Start it.

        Args:
            stage: Its name.
            stdin: The file that it reads.
            scratch: The folder that it works in.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "service.worker.child_main", stage],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd=scratch,
            env=stage_environment() | scratch_environment(scratch),
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.stdout: IO[bytes] = self._process.stdout
        self.stderr: IO[bytes] = self._process.stderr

    @property
    def group(self) -> int:
        """Its own id."""
        return self._process.pid

    def has_ended(self) -> bool:
        """Whether it has ended; asked of the kernel."""
        # Not reaped yet: its pid stays reserved, so killing its group cannot hit a stranger.
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def kill_group(self) -> None:
        """Kill it and its group, while its id is its own."""
        if self._process.returncode is None:
            kill_group(self._process.pid)

    def wait(self) -> int:
        """Return the exit status and free the id."""
        return self._process.wait()


def kill_group(leader: int) -> None:
    """Kill a child of ours that is not reaped yet, and its group; it may not have come to lead one yet."""
    os.kill(leader, signal.SIGKILL)
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


def stage_environment() -> dict[str, str]:
    """Return what every stage may know: no keys, no database addresses."""
    kept = {key: value for key, value in os.environ.items() if key in _KEPT_VARIABLES or key.startswith(_KEPT_PREFIXES)}
    source = Path(__file__).resolve().parents[2]
    if source.name not in ("site-packages", "dist-packages"):  # run from a checkout
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, (str(source), kept.get("PYTHONPATH"))))
    return {**IDLE, **kept, **NO_TELEMETRY, "PYTHONUNBUFFERED": "1"}


def scratch_environment(scratch: Path) -> dict[str, str]:
    """Return what sends a stage's temporary files to its scratch folder."""
    # The plotting library would otherwise keep its font list in the user's home.
    return {"TMPDIR": str(scratch), "MPLCONFIGDIR": str(scratch)}


@contextlib.contextmanager
def scratch_folder(root: Path, prefix: str) -> Iterator[Path]:
    """Give a new folder in ``root``, which is removed at the end; an interrupt leaves none, even one that comes while it is made."""
    made: list[Path] = []
    try:
        with signals_held():
            made.append(Path(tempfile.mkdtemp(prefix=prefix, dir=root)))
        yield made[0]
    finally:
        for folder in made:
            remove_tree(folder)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Hold back interrupts while a child is started or its folder made: one that came in the middle would leave it to nobody."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs signal handlers in the main thread alone
        return
    held: list[int] = []
    before = {number: signal.signal(number, lambda came, frame: held.append(came)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    for came in held:
        signal.raise_signal(came)
