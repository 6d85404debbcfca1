"""A trial holds as few engines at a time as it can."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine_builder.backends.base import Runner
from engine_builder.backends.kernels import KernelTime
from engine_builder.backends.onnxruntime.cpu import OrtCpuBackend, OrtCpuRunner
from engine_builder.backends.registry import Target
from tests.driver import REAL_TIME, Json, ranged, with_corrections
from tests.engine_builder.stages.test_trial import run_trial
from tests.model_text import cnn, samples_for


class CountedRunner(OrtCpuRunner):
    """Is in a list while it is open."""

    def __init__(self, engine: Path, opened: list[CountedRunner], *, threads: int) -> None:
        super().__init__(engine, threads=threads)
        self.engine, self._opened = engine, opened
        opened.append(self)

    def close(self) -> None:
        super().close()
        if self in self._opened:
            self._opened.remove(self)


class CountingBackend(OrtCpuBackend):
    """Notes which engines, by their folders, are open whenever another one is opened or profiled."""

    def __init__(self, seen: list[list[str]]) -> None:
        self.seen: list[list[str]] = seen
        self.opened: list[CountedRunner] = []

    def open(self, engine: Path, *, threads: int) -> Runner:
        runner = CountedRunner(engine, self.opened, threads=threads)
        self.seen.append([one.engine.parent.name for one in self.opened])
        return runner

    def kernel_times(
        self, engine: Path, feeds: Mapping[str, NDArray[np.generic]], *, threads: int, scratch: Path
    ) -> tuple[KernelTime, ...]:
        self.seen.append([one.engine.parent.name for one in self.opened])
        return ()


def test_a_trial_holds_one_engine_at_a_time_and_the_baseline_only_beside_what_it_times(tmp_path: Path) -> None:
    config: Json = {"accuracy": {"max_nmse": 1e-9}, "exact_on": "any_x86_64"}  # which neither engine meets
    driver, basics = ranged(tmp_path, cnn(), samples_for(cnn(), 20, seed=8), samples_for(cnn(), 12, seed=106), config)
    job = with_corrections(driver, basics)
    seen: list[list[str]] = []
    driver.timer = REAL_TIME
    driver.targets = {"onnxruntime-cpu": Target(lambda gpu, options: CountingBackend(seen))}
    trial = run_trial(driver, job, "Conv_c1")
    assert trial.corrections is not None
    assert not trial.met
    scratch = seen[0][0]
    # both on held-out samples, both on validation samples, the corrected one again, with the baseline; nothing while it is profiled
    assert seen[:5] == [[scratch], ["corrected"], ["corrected"], [scratch], ["corrected"]]
    assert len(seen[5]) == 2
    assert seen[6:] == [[]]
