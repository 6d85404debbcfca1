from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.process_tree import run_measured
from benchmarks.sizes.tree_use import TreeUse

# Forks two children of this name that share 80 MB, one of which adds 60 MB of its own and reads 5 MB.
SCRIPT = """
import ctypes, os, time
block = bytearray(b"x" * 80_000_000)
for own in (60_000_000, 0):
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(15, b"stage one", 0, 0, 0)
        held = bytearray(own)
        held[::4096] = b"y" * len(held[::4096])  # each page is taken, and never twice as much
        if own:
            open("/dev/zero", "rb", buffering=0).read(5_000_000)
        time.sleep(1.5)
        os._exit(0)
for _ in range(2):
    os.wait()
"""


def test_forks_are_counted_by_name_and_shared_pages_once(tmp_path: Path) -> None:
    seen = TreeUse()
    usage = run_measured([sys.executable, "-c", SCRIPT], tmp_path / "log", on_sample=seen.see)
    assert usage.status == 0, (tmp_path / "log").read_text()
    stage = seen.by_stage()["stage one"]
    assert stage.runs == 2
    assert stage.read_bytes >= 5_000_000
    # Three processes hold the 80 MB: together they are one block, of which a third is each one's.
    assert 140e6 < seen.peak_pss_bytes < 200e6
    assert usage.peak_rss_bytes > 3 * 80e6
    assert 60e6 < stage.peak_pss_bytes < 140e6
