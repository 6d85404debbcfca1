from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.job_costs import NEW, OLD, PRODUCTS, JobCost, least, page, products_job
from benchmarks.results_files import environment
from engine_builder.config.config import config_from_json


def cost(side: str, seconds: float) -> JobCost:
    return JobCost("job", side, seconds, 1.0, 3, "3 int8", 2.0, 0.001)


def test_the_least_of_each_sides_runs_counts() -> None:
    found = [cost(OLD, 20.0), cost(NEW, 9.0), cost(NEW, 8.0), cost(OLD, 16.0)]
    assert least(found, "job", NEW).cpu_seconds == 8.0
    assert "| job | 16.0 | 8.0 | 0.50 |" in page(found, environment(), "before")


def test_the_network_of_products_takes_its_samples_and_its_settings_are_valid(tmp_path: Path) -> None:
    job = products_job(tmp_path)
    assert job.name == PRODUCTS
    config_from_json(dict(job.config))
    with np.load(job.calibration) as data:
        found = onnxruntime.InferenceSession(job.model, providers=["CPUExecutionProvider"]).run(None, {"input": data["input"]})
    assert found[0].shape == (512, 10)
    assert len(set(found[0].argmax(axis=1).tolist())) > 3  # classes that an engine could confuse
