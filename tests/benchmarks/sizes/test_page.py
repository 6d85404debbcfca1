from __future__ import annotations

from dataclasses import replace

from benchmarks.process_tree import Usage
from benchmarks.sizes.page import page, row
from benchmarks.sizes.sized_job import SizedJob
from benchmarks.sizes.tree_use import StageUse
from tests.benchmarks.page_tables import table

JOB = SizedJob(
    name="net",
    model_bytes=100_000_000,
    config={},
    usage=Usage(status=0, wall_seconds=100.4, cpu_seconds=150.2, peak_rss_bytes=700_000_000),
    peak_pss_bytes=450_000_000,
    stages={"stage inspect": StageUse(1, 400_000_000, 12.34, 250_000_000, 100_000_000)},
    result={
        "outcome": "improved",
        "speedup": 2.0,
        "chosen": {"precisions": {"fp32": 3, "int8": 38}},
        "verdict": {"answer": "met_on_sample"},
    },
    trials=4,
    output_bytes=30_000_000,
    message="",
)
ENVIRONMENT = dict.fromkeys(
    ("processor", "integer_instructions", "processors_used", "load_average", "system", "python", "onnx", "onnxruntime", "numpy"), "?"
)


def test_page_has_memory_against_the_bar_and_traffic_in_models() -> None:
    written = page([JOB], ENVIRONMENT, "8 samples")
    (job,) = table(written, "network", "outcome")
    assert (job["ratio"], job["peak MB (PSS)"], job["of 300 MB + 3 x model"]) == ("0.500", "450", "0.75")
    (stage,) = table(written, "network", "process")
    assert (stage["process"], stage["read, in models"], stage["written, in models"]) == ("stage inspect", "2.5", "1.0")


def test_a_failed_job_has_its_message_and_what_it_took() -> None:
    cells = row(replace(JOB, result={}, message="no room", usage=replace(JOB.usage, status=1)))
    assert "exit 1: no room" in cells
    assert cells[-1] == "0.75"
