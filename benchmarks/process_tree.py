"""Runs a command and measures its whole process tree: wall clock, CPU seconds, peak memory."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Usage:
    """What a command took.

    ``peak_rss_bytes`` is the largest sum of resident memory over the tree, sampled every ``SAMPLE_SECONDS``; pages that processes share
    count in each.
    """

    status: int
    wall_seconds: float
    cpu_seconds: float
    peak_rss_bytes: int


def run_measured(
    command: Sequence[str],
    log: Path,
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    on_sample: Callable[[Sequence[psutil.Process]], None] = lambda tree: None,
) -> Usage:
    """Run the command to its end and return what it took.

    CPU seconds are those of the command and of every descendant that its parent waited for, which all of this project's do; no other
    child of this process may end meanwhile.

    Args:
        command: Program and arguments.
        log: Where what it prints goes.
        folder: Where it runs; by default where this process does.
        environment: Its variables; by default those of this process.
        on_sample: Is shown the processes of the tree at every sample; some may have ended since they were listed.
    """
    before = _children_seconds()
    start = time.perf_counter()
    peak = 0
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=folder, env=environment) as process,
    ):
        root = psutil.Process(process.pid)
        while process.poll() is None:
            tree = _tree(root)
            peak = max(peak, sum(map(_bytes, tree)))
            on_sample(tree)
            time.sleep(SAMPLE_SECONDS)
    return Usage(process.returncode, time.perf_counter() - start, _children_seconds() - before, peak)


def _tree(root: psutil.Process) -> tuple[psutil.Process, ...]:
    try:
        return (root, *root.children(recursive=True))
    except psutil.NoSuchProcess:
        return ()


def _bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
