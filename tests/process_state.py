"""Whether a process still runs, asked without a race: it may end between two questions."""

from __future__ import annotations

import psutil


def is_running(pid: int) -> bool:
    """Return whether there is such a process and it is no zombie, which only waits for its parent."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
