from __future__ import annotations

import subprocess
import sys
import time

import psutil

from benchmarks.durable.__main__ import page
from benchmarks.durable.sides import CALL, SERVER, WORKER, Cost, cpu_seconds
from benchmarks.results_files import environment


def test_each_way_is_set_beside_the_call_of_its_turn() -> None:
    costs = [Cost(CALL, 20.0, 10.0, 3), Cost(SERVER, 21.0, 11.0, 3), Cost(WORKER, 24.0, 12.0, 3)]
    costs += [Cost(WORKER, 44.0, 12.0, 4), Cost(CALL, 40.0, 10.0, 3), Cost(SERVER, 40.4, 11.0, 3)]
    text = page("MiniLM", costs, {1: Cost(WORKER, 80.0, 60.0, 12), 4: Cost(WORKER, 90.0, 40.0, 12)}, 4, environment())
    assert "| one server | 30.7 (21.0 to 40.4) | 11.0 (11.0 to 11.0) | 3, 3 | +3.0% (+5.0%, +1.0%) |" in text
    assert "| an api, a worker and Postgres | 34.0 (24.0 to 44.0) | 12.0 (12.0 to 12.0) | 3, 4 | +15.0% (+20.0%, +10.0%) |" in text
    assert "| 4 | 40.0 | 90.0 | 12 | 1.50 |" in text


def test_children_that_have_ended_are_counted() -> None:
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(10**7))']); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.1)
        alone = sum(psutil.Process(process.pid).cpu_times()[:2])
        assert cpu_seconds(psutil.Process(process.pid)) > alone + 0.05
        process.kill()
