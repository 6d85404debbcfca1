from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.jobs import JobResult, own_job, page, row
from benchmarks.process_tree import Usage

RESULT = JobResult(
    name="mobilenetv2 batch 64, 99%",
    config={"batch_size": 64},
    result={
        "outcome": "baseline_kept",
        "chosen": {"precisions": {"fp32": 3, "int8": 38}},
        "verdict": {"answer": "met_on_sample", "metric": "top1"},
    },
    trials=7,
    usage=Usage(status=0, wall_seconds=12.4, cpu_seconds=20.6, peak_rss_bytes=345_600_000),
    measured={
        "float": {"accuracy": 0.9, "ratio": 1.0, "ratio_mad": 0.0},
        "engine": {"accuracy": 0.895, "ratio": 0.5, "ratio_mad": 0.01},
        "plain int8": {"accuracy": 0.91, "ratio": 0.4567, "ratio_mad": 0.02},
    },
)
NOTHING_GIVEN = argparse.Namespace(model=None, calibration=None, validation=None, config=None)
ENVIRONMENT = dict.fromkeys(
    ("processor", "integer_instructions", "processors_used", "load_average", "system", "python", "onnx", "onnxruntime", "numpy"), "?"
)


def test_row_gives_ratio_with_spread_and_drop_with_sign() -> None:
    expected = ["mobilenetv2 batch 64, 99%", "baseline kept", "3 fp32, 38 int8", "7", "0.500 ± 0.010", "+0.0050", "met on sample"]
    assert row(RESULT) == [*expected, "12", "21", "346", "0.457 ± 0.020", "-0.0100"]


def test_page_holds_a_row_for_each_job() -> None:
    assert page([RESULT, RESULT], ENVIRONMENT).count("| mobilenetv2 batch 64, 99% |") == 2


def test_own_job_takes_the_name_of_its_model(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"batch_size": 2}', encoding="utf-8")
    (job,) = own_job(argparse.Namespace(model=Path("net.onnx"), calibration=Path("c.npz"), validation=Path("v.npz"), config=config))
    assert (job.name, job.config) == ("net", {"batch_size": 2})


def test_without_a_model_there_is_no_own_job() -> None:
    assert own_job(NOTHING_GIVEN) == ()
