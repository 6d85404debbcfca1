from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.process_tree import run_measured

GRANDCHILD = "import time; block = bytearray(60_000_000); block[::4096] = b'x' * len(block[::4096]); time.sleep(0.5)"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {GRANDCHILD!r}], check=True)"


def test_memory_of_grandchildren_counts(tmp_path: Path) -> None:
    usage = run_measured([sys.executable, "-c", PARENT], tmp_path / "log")
    assert usage.status == 0
    assert usage.peak_rss_bytes > 60_000_000
    assert usage.wall_seconds > 0.5
    assert usage.cpu_seconds > 0


def test_failed_command_leaves_its_status_and_what_it_printed(tmp_path: Path) -> None:
    usage = run_measured([sys.executable, "-c", "import sys; print('why'); sys.exit(3)"], tmp_path / "log")
    assert usage.status == 3
    assert (tmp_path / "log").read_text() == "why\n"
