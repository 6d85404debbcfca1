from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.sizes.cases import CASES, Case
from benchmarks.sizes.large_network import LargeNetwork
from benchmarks.sizes.sized_job import run_sized_job


def _write(path: Path) -> None:
    with LargeNetwork(path) as network:
        network.node("MatMul", "x", network.constant(network.normal(16, 4, deviation=0.3)), called="logits")
        network.save({"x": ("float32", ("n", 16))}, {"logits": ("float32", ("n", 4))}, one_file=True)


def _samples(name: str) -> Case:
    def made(rng: np.random.Generator, count: int) -> dict[str, NDArray[np.generic]]:
        return {name: rng.standard_normal((count, 16)).astype(np.float32)}

    return Case(_write, made)


def test_a_job_runs_to_its_end_and_its_stages_are_seen(tmp_path: Path) -> None:
    job = run_sized_job("small", _samples("x"), {"search": {"max_trials": 1}}, tmp_path / "job", calibration=8, validation=8)
    assert (job.usage.status, job.message) == (0, "")
    assert job.result["outcome"]
    assert job.trials >= 1
    assert any(name.startswith("stage ") for name in job.stages)  # which ones depends on when samples are taken
    assert job.output_bytes > 0
    assert job.peak_pss_bytes > 0


def test_a_job_that_is_refused_leaves_its_words(tmp_path: Path) -> None:
    job = run_sized_job("small", _samples("not_x"), {}, tmp_path / "job", calibration=8, validation=8)
    assert job.usage.status == 2
    assert "not_x" in job.message


def test_samples_of_every_network_have_the_count_asked_for() -> None:
    for name, case in CASES.items():
        assert {len(array) for array in case.samples(np.random.default_rng(0), 2).values()} == {2}, name
