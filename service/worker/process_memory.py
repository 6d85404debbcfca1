"""How much memory a stage holds, and whether the kernel took its life for it."""

from __future__ import annotations

import os
import resource
from pathlib import Path


def resident_bytes(group: int) -> int:
    """Return the resident memory of a process group's processes together; pages that they share count for each."""
    total = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getpgid(int(entry.name)) == group:
                    total += int((entry / "statm").read_text().split()[1]) * resource.getpagesize()
            except (OSError, ValueError, IndexError):  # it ended while it was looked at
                continue
    return total


def kernel_kills() -> int:
    """Return how many processes this machine's kernel has killed for lack of memory; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
