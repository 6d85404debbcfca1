"""The order in which files of tests are begun: those that take longest first, and those that mostly wait in turns with the others."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

WAITING = frozenset({"distributed", "faults", "soak"})  # folders: for processes that are killed, leases that end, networks that are cut
COMPUTING = 2  # files for each that waits, while there are any


def in_order(files: Iterable[Path]) -> list[Path]:
    """Return each file once, in the order in which workers that take one after the other are soonest done.

    Files near the top test the most at once and take longest: begun first, they leave no worker alone with one of them at the end.
    """
    by_depth = sorted(dict.fromkeys(files), key=lambda file: len(file.parts))
    waiting = [file for file in by_depth if WAITING & set(file.parts)]
    computing = [file for file in by_depth if not WAITING & set(file.parts)]
    found: list[Path] = []
    while waiting or computing:
        found += waiting[:1] + computing[:COMPUTING]
        del waiting[:1], computing[:COMPUTING]
    return found
