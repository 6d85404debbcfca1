from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from calibration.process.memory import return_dropped_models, return_free_memory

HOLES = """
import sys
import weakref
from pathlib import Path
from calibration.process.memory import keep_little_free_memory
if sys.argv[1] == "little":
    keep_little_free_memory()
first = bytearray(24 << 20)  # glibc keeps blocks of up to this size in its heap from here on
del first
blocks = [bytes([1]) * (4 << 20) for _ in range(16)]
last = bytes(1 << 16)
blocks.clear()
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")))
"""


def resident_kb(what: str) -> int:
    root = str(Path(__file__).parents[3])
    run = subprocess.run(
        [sys.executable, "-c", HOLES, what], env={**os.environ, "PYTHONPATH": root}, capture_output=True, check=True, text=True
    )
    return int(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that learns to keep freed blocks")
def test_freed_blocks_go_back_to_the_system() -> None:
    assert resident_kb("little") < resident_kb("default") - 30_000


def test_free_memory_can_be_returned_at_any_time() -> None:
    block = bytearray(b"kept") * (1 << 18)
    return_free_memory()
    assert block == bytearray(b"kept") * (1 << 18)


def test_models_that_were_let_go_of_are_collected_where_they_are_large() -> None:
    class Circle:
        def __init__(self) -> None:
            self.itself = self

    gc.disable()
    try:
        circle = weakref.ref(Circle())
        return_dropped_models(1 << 20)
        assert circle() is not None
        return_dropped_models(64 << 20)
        assert circle() is None
    finally:
        gc.enable()


STARTED = """
import gc
from calibration.process.memory import set_start_up_apart
class Circle:
    def __init__(self):
        self.itself = self
start = [Circle() for _ in range(500_000)]
if sys.argv[1] == "apart":
    set_start_up_apart()
gc.collect()
before = gc.get_stats()[2]["collections"]
kept = []
for _ in range(100):
    kept = [*kept[-10:], [Circle() for _ in range(1_000)]]
print(gc.get_stats()[2]["collections"] - before)
"""


def test_objects_of_a_start_do_not_put_off_looks_for_circles() -> None:
    """All are looked through again when what outlived two looks is a quarter of what is old."""
    root = str(Path(__file__).parents[3])
    counts = []
    for what in ("apart", "together"):
        command = [sys.executable, "-c", f"import sys{STARTED}", what]
        run = subprocess.run(command, env={**os.environ, "PYTHONPATH": root}, capture_output=True, check=True, text=True)
        counts.append(int(run.stdout))
    assert counts[0] > counts[1]
