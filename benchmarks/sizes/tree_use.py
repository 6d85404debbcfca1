"""Sees what the processes of a job hold, read and compute, each stage by its name.

Memory is the sum of proportional set sizes (PSS): a page that several processes share, as all forks of one parent do, counts once over all
of them. Pages of mapped files count as well, though the kernel can take them back.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import psutil

PSS_SECONDS = 0.1  # between two samples: each walks the page tables of all processes


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What one process was seen to use until the last sample before its end."""

    name: str
    peak_pss_bytes: int = 0
    cpu_seconds: float = 0.0
    read_bytes: int = 0  # by system calls, from the page cache too; mapped files are not in it
    written_bytes: int = 0


@dataclass(frozen=True, slots=True)
class StageUse:
    """What all processes of one name used together; its peak is that of the largest one."""

    runs: int
    peak_pss_bytes: int
    cpu_seconds: float
    read_bytes: int
    written_bytes: int


class TreeUse:
    """Takes samples of a process tree (``benchmarks.process_tree.run_measured``). Not thread-safe."""

    def __init__(self) -> None:
        self.peak_pss_bytes = 0  # of the whole tree
        self._processes: dict[int, ProcessUse] = {}
        self._next = 0.0

    def see(self, tree: Sequence[psutil.Process]) -> None:
        """Take one sample, if the last one is long enough ago."""
        if time.monotonic() < self._next:
            return
        total = 0
        for process in tree:
            try:
                total += self._see(process)
            except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):  # it has ended, or begins to
                continue
        self.peak_pss_bytes = max(self.peak_pss_bytes, total)
        self._next = time.monotonic() + PSS_SECONDS

    def by_stage(self) -> dict[str, StageUse]:
        """Return what was used by name of process, in order of their begin."""
        named: dict[str, list[ProcessUse]] = defaultdict(list)
        for use in self._processes.values():
            named[use.name].append(use)
        return {
            name: StageUse(
                len(uses),
                max(use.peak_pss_bytes for use in uses),
                sum(use.cpu_seconds for use in uses),
                sum(use.read_bytes for use in uses),
                sum(use.written_bytes for use in uses),
            )
            for name, uses in named.items()
        }

    def _see(self, process: psutil.Process) -> int:
        pss = int(process.memory_full_info().pss)
        cpu, files = process.cpu_times(), process.io_counters()
        known = self._processes.get(process.pid, ProcessUse(""))
        self._processes[process.pid] = replace(
            known,
            name=process.name(),
            peak_pss_bytes=max(known.peak_pss_bytes, pss),
            cpu_seconds=cpu.user + cpu.system,
            read_bytes=files.read_chars,
            written_bytes=files.write_chars,
        )
        return pss
