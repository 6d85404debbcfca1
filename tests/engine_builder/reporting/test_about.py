from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from engine_builder.reporting.about import about_in_words, machine_in_words
from engine_builder.reporting.body.made_now import made_now
from engine_builder.reporting.body.report_body import Made
from engine_builder.reporting.page import render
from engine_builder.workspace.workspace import FileRef
from tests.engine_builder.report_body import BODY
from tests.engine_builder.reporting.page_reader import Page

MADE = Made("resnet<20>.onnx", "c" * 64, "2026-11-29T19:12:34+00:00", "1.2")


def test_a_report_says_what_it_is_about_below_its_heading() -> None:
    words = about_in_words(replace(BODY, made=MADE))
    assert words == "resnet<20>.onnx · 29 November 2026, 19:12 UTC · onnx-trt-optimizer 1.2 · onnxruntime-cpu · some CPU, 1 thread"
    assert words in Page(render(replace(BODY, made=MADE))).text


def test_an_older_report_says_what_it_knows() -> None:
    assert about_in_words(BODY) == "onnxruntime-cpu · some CPU, 1 thread"


def test_a_processor_is_told_with_its_instruction_sets_and_a_gpu_with_its_driver() -> None:
    assert machine_in_words({"processor": "CPU", "instruction_sets": ["AVX2", "AVX-512 VNNI"], "threads": 2}) == (
        "CPU (AVX2, AVX-512 VNNI), 2 threads"
    )
    assert machine_in_words({"gpu": "H200", "driver": "580.1", "tensorrt": "10.12", "processor": "CPU", "threads": 1}) == (
        "H200 (driver 580.1, TensorRT 10.12)"
    )
    assert machine_in_words({}) == "unknown processor"


def test_a_report_that_is_made_now_has_the_users_own_name_of_the_model() -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    made = made_now(FileRef("model/mine.onnx", "c" * 64))
    assert (made.model, made.model_sha256) == ("mine.onnx", "c" * 64)
    assert before <= datetime.fromisoformat(made.at) <= datetime.now(UTC)
