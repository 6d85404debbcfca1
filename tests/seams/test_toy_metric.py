"""A metric of somebody else's: a measure in a file and a row, and whole jobs are judged by it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest

from engine_builder.config.config import json_schema
from service.cli.summary import summary_lines
from tests.driver import plain_outputs, run_job
from tests.model_text import cnn, samples_for
from tests.seams.extended_copy import call, extended_copy

MEASURE = '''"""How many values are nearly the float model's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def near(reference: NDArray[np.generic], output: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the share of the values of each sample, (samples, ...), that are at most 0.01 from the reference, (samples,) in 0..1."""
    return np.asarray((np.abs(output - reference) <= 0.01).reshape(len(output), -1).mean(axis=1), dtype=np.float64)
'''
ROWS = {
    "from calibration.accuracy.measures.token_classes": "from calibration.accuracy.measures.near import near\n",
    "    CUSTOM = ": '    NEAR = "near", MetricSpec("share of values that are nearly the float model\'s", Truth.REFERENCE, unnamed(near), '
    "is_real_valued=True, is_perfect_by_definition=True)\n",
}


def judged_job(folder: Path) -> dict[str, object]:
    """Return what a job says of its engine by the new metric, and what that engine scores in plain onnxruntime."""
    model, samples = cnn(), samples_for(cnn(), 40, seed=1)
    job = run_job(folder / "job", model, validation=samples, config={"accuracy": {"metric": "near", "min_relative": 0.3}})
    (wanted,), (found,) = (plain_outputs(one, samples, 1) for one in (model.SerializeToString(), job.engine))
    distance = np.abs(found.astype(np.float64) - wanted.astype(np.float64))
    return {
        "verdict": job.verdict,
        "outcome": job.result["outcome"],
        "near": float((distance <= 0.01).mean()),
        "summary": summary_lines(job.result),
        "schema": json_schema(),
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("metric")
    copy = extended_copy(folder / "copy", "calibration/accuracy/measures/near.py", MEASURE, "calibration/accuracy/metrics.py", ROWS)
    return cast(dict[str, object], call(copy, judged_job, folder / "work"))


def test_an_engine_is_judged_by_the_new_measure(found: dict[str, object]) -> None:
    verdict = cast(dict[str, object], found["verdict"])
    assert (found["outcome"], verdict["metric"], verdict["n"]) == ("improved", "near", 40)
    assert 0.3 < cast(float, found["near"]) < 1.0  # some values of the engine are near, and not all
    assert verdict["drop"] == pytest.approx(1.0 - cast(float, found["near"]), abs=1e-12)  # the float model itself scores 1


def test_the_new_metric_is_told_to_users(found: dict[str, object]) -> None:
    assert "near: share of values that are nearly the float model's." in str(found["schema"])
    assert any("near, drop +" in line for line in cast(list[str], found["summary"]))
