from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html import escape

import pytest

from calibration.accuracy.metrics import Metric, OutputKind
from calibration.accuracy.verdict import Answer
from engine_builder.backends.achieved_precision import AchievedPrecision
from engine_builder.backends.base import Source
from engine_builder.records.float_plan import BaselineFallback, FloatAttempt
from engine_builder.reporting.body.job_result import PredictedSpeedup, TakenOutput
from engine_builder.reporting.body.layer_facts import DependencyMap, MeasuredPair
from engine_builder.reporting.body.report_body import FUNCTION, ReportBody
from engine_builder.reporting.page import render
from engine_builder.stage_io.engines import FinalLatency
from tests.engine_builder.report_body import (
    BODY,
    INT8,
    KEPT_BASELINE,
    REPAIRED,
    RESULT,
    VERDICT,
    failed,
    layer,
    with_result,
    with_verdict,
)
from tests.engine_builder.reporting.page_reader import Page

CONTENTS = {"whole": BODY, "empty": KEPT_BASELINE}
WEAK = "Dependencies: 2 layers with weaker dependencies are not in the map"
ALWAYS = ["Optimization report", "Verdict", "What next", "The numbers", "Environment and how to repeat it"]


@cache
def page_of(name: str) -> Page:
    return Page(render(CONTENTS[name]))


def command_of(body: ReportBody) -> str:
    text = Page(render(body)).sections["Environment and how to repeat it"].text
    return text[: text.index(" with this config.json:")]


@pytest.mark.parametrize("name", CONTENTS)
def test_the_page_is_well_formed(name: str) -> None:
    page = page_of(name)
    assert page.tags >= {"html", "title", "h1", "h2", "table", "p"}
    assert len(page.ids) == len(set(page.ids))


def test_the_headings_come_in_the_order_of_a_readers_questions() -> None:
    assert page_of("whole").headings == [
        "Optimization report",
        "Verdict",
        "Finalists",
        "Why not faster",
        "What next",
        "At other budgets",
        "Engines",
        "Sensitivity",
        "Kernel time",
        "Dependencies",
        "The baseline needed a float fallback",
        "Corrections",
        "Predicted and measured",
        "What was done to the model and the data",
        "The numbers",
        "Environment and how to repeat it",
    ]


def test_a_report_without_measurements_has_neither_plots_nor_empty_headings() -> None:
    page = page_of("empty")
    assert page.headings == ALWAYS
    assert page.plots == []


UNPROBED = tuple(replace(item, loss=None, hessian=None) for item in BODY.layers)
PARTS: dict[str, tuple[ReportBody, set[str]]] = {
    "trials": (replace(KEPT_BASELINE, trials=BODY.trials), {"Engines", "Why not faster"}),
    "losses": (replace(KEPT_BASELINE, layers=BODY.layers), {"Sensitivity"}),
    "kernels": (replace(KEPT_BASELINE, layers=UNPROBED, forecasts=BODY.forecasts), {"Kernel time"}),
    "map": (replace(KEPT_BASELINE, dependency_map=BODY.dependency_map), {"Dependencies", WEAK}),
    "whole map": (replace(KEPT_BASELINE, dependency_map=replace(BODY.dependency_map, left_out=())), {"Dependencies"}),
    "correction of the baseline": (replace(KEPT_BASELINE, baseline_repair=REPAIRED), {"The baseline needed a float fallback"}),
    "repairs": (replace(KEPT_BASELINE, repairs=BODY.repairs), {"Corrections"}),
    "predictions": (
        replace(KEPT_BASELINE, trials=BODY.trials, predictions=BODY.predictions),
        {"Engines", "Why not faster", "Predicted and measured"},
    ),
    "notes": (replace(KEPT_BASELINE, notes=BODY.notes), {"What was done to the model and the data"}),
    "reached": (
        replace(KEPT_BASELINE, reached=BODY.reached, reached_in=2),
        {"The numbers: Asked for and got in trial 2, which is not what is kept"},
    ),
    "baseline": (
        replace(KEPT_BASELINE, baseline_reached=BODY.reached),
        {"The numbers: Asked for and got in the baseline with its float fallback"},
    ),
    "pairs": (replace(KEPT_BASELINE, dependencies=BODY.dependencies), {"The numbers: The strongest dependencies that were tested exactly"}),
    "layers without losses": (replace(KEPT_BASELINE, layers=UNPROBED), set()),
    "kernels of no layer": (replace(KEPT_BASELINE, forecasts=BODY.forecasts), set()),
    "a map of one layer": (replace(KEPT_BASELINE, dependency_map=DependencyMap(("conv",), ((),), ("gemm",))), set()),
    "predictions of no trial": (replace(KEPT_BASELINE, predictions=BODY.predictions), set()),
    "nothing reached": (replace(KEPT_BASELINE, reached=(), reached_in=2), set()),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_has_its_heading_where_it_has_something_to_show_and_only_there(name: str) -> None:
    body, added = PARTS[name]
    sections = Page(render(body)).sections
    assert set(sections) - set(page_of("empty").sections) == added
    assert [heading for heading in added if not (sections[heading].tables or sections[heading].plots or sections[heading].text)] == []


def test_the_headline_gives_both_engines_with_the_spread_of_their_times() -> None:
    assert page_of("whole").tiles == [
        "1.25x ± 0.02 speed-up: latency measured, both engines in turns",
        "10.000 ± 0.050 ms → 8.000 ± 0.050 ms median latency of one call ± median absolute deviation of calls",
        "0.9000 → 0.8990 top1 on 400 samples; allowed drop 0.00250",
        "4.00 MB → 1.00 MB size; layers: 3 fp32, 1 int8",
    ]


def test_a_speedup_that_is_predicted_is_called_so_and_has_a_range() -> None:
    latency = FinalLatency(10.0, None, None, 0)
    result = replace(
        RESULT,
        latency_source=Source.PREDICTED,
        speedup=None,
        predicted_speedup=PredictedSpeedup(1.25, (1.1, 1.5)),
        baseline=replace(RESULT.baseline, latency_ms=latency),
    )
    page = Page(render(with_result(result, replace(KEPT_BASELINE, trials=BODY.trials))))
    assert page.tiles[0] == "1.25x predicted speed-up: latency predicted"
    assert page.tiles[1].endswith("predicted latency of one call, not measured; speed-up between 1.10 and 1.50")
    assert "Its latency is predicted from the kernels that the build lists" in page.sections["Engines"].text


def test_the_kept_baseline_stands_alone() -> None:
    page = Page(render(KEPT_BASELINE))
    assert page.tiles == [
        "baseline kept latency measured",
        "10.000 ± 0.050 ms median latency of one call ± median absolute deviation of calls",
        "0.9000 top1 on 400 samples; allowed drop 0.00250",
        "4.00 MB size; layers: 4 fp32",
    ]


@pytest.mark.parametrize(("answer", "words"), [(Answer.MET, "met"), (Answer.MET_ON_SAMPLE, "likely met"), (Answer.NOT_MET, "not met")])
def test_the_badge_has_the_colour_and_the_words_of_the_answer(answer: Answer, words: str) -> None:
    page = Page(render(with_verdict(replace(VERDICT, answer=answer), KEPT_BASELINE)))
    assert page.badges == [f"badge {answer}"]
    assert page.sections["Verdict"].text.startswith(f"{words} The accuracy budget is ")


def test_the_reason_and_the_warnings_come_first() -> None:
    lead = page_of("whole").sections["Optimization report"].text.split("|")[0]
    assert (
        lead.index("more likely keeps the accuracy budget than not")
        < lead.index("The fastest.")
        < lead.index("Warning: 3 samples are the same.")
    )
    assert "Warning" not in page_of("empty").text


def test_what_is_judged_stands_in_words_as_they_are_set_from_the_left() -> None:
    taken = TakenOutput("boxes", (OutputKind.DETECTIONS,), "with 'scores': their rows are sorted by score", "F1", "outputs: {}", "")
    page = Page(render(with_result(replace(RESULT, outputs=(taken,)))))
    (row,) = page.sections["What is judged"].rows
    assert row["because"] == taken.why
    assert f"<td>{escape(taken.why)}</td>" in page.source  # columns of numbers alone have the class that sets them from the right
    assert "th,td{text-align:left" in page.source


def test_the_page_has_a_plot_of_everything() -> None:
    sections = page_of("whole").sections
    assert {heading: section.plots for heading, section in sections.items() if section.plots} == {
        "Engines": [
            "Accuracy against latency of all trials",
            "Latency and number of quantized layers of each trial, in the order of the search",
        ],
        "Sensitivity": ["Sensitivity of each layer, with standard errors"],
        "Kernel time": ["Kernel time of each layer before and after"],
        "Dependencies": ["Dependency of each pair of layers"],
        "Predicted and measured": ["Predicted against measured: latency / baseline", "Predicted against measured: loss of the outputs"],
    }


@pytest.mark.parametrize(("source", "words"), [(Source.MEASURED, "Profiled in"), (Source.PREDICTED, "Predicted for the kernels of")])
def test_the_page_says_where_the_times_of_kernels_come_from(source: Source, words: str) -> None:
    text = Page(render(replace(KEPT_BASELINE, layers=UNPROBED, forecasts=BODY.forecasts, kernel_times=source))).sections["Kernel time"].text
    assert text.startswith(
        f"{words} the baseline engine and in that with every layer quantized. All of these layers together: 1.4 ms before, 0.9 ms"
    )


def test_the_sensitivities_say_what_they_cost() -> None:
    text = page_of("whole").sections["Sensitivity"].text
    assert "over 64 samples (Hessian: 32); 2 layer precisions took the work of 2.5 whole forward passes of each sample." in text


def test_layers_that_are_not_in_the_map_are_named() -> None:
    assert page_of("whole").sections[WEAK].text == "weak, weaker"


def test_the_page_says_what_the_corrections_gained() -> None:
    section = page_of("whole").sections["Corrections"]
    assert section.text.endswith("SmoothQuant: 1 of 2 kept, which took the loss from 0.2 to 0.125.")
    assert [tuple(row.values()) for row in section.rows] == [
        ("SmoothQuant", "conv, gemm", "0.2", "0.125 ± 0.01", "yes"),
        ("SmoothQuant", "head", "0.3", "0.4 ± 0.02", "no"),
    ]


def test_a_repaired_baseline_says_why_and_what_was_tried() -> None:
    section = page_of("whole").sections["The baseline needed a float fallback"]
    assert section.text.startswith("The baseline in FP16 misses the accuracy budget by itself.")
    assert "The fastest that meets it is kept: FP16 with blocks in FP32." in section.text
    attempts, blocks = section.tables
    assert attempts[1:] == [
        ["FP16", "4 fp16", "0.5", "1", "no"],
        ["BF16", "4 bf16", "-", "-", "no BF16 here"],
        ["FP16 with blocks in FP32 (kept)", "3 fp16, 1 fp32", "0.9", "1.25", "yes"],
    ]
    assert blocks[1:] == [["conv", "3", "0.25 ± 0.02", "fp32"], ["gemm", "1", "0.001 ± 0.0001", "fp16"]]


def test_a_baseline_that_nothing_repaired_is_said_to_miss_the_budget() -> None:
    refused = BaselineFallback(
        (FloatAttempt("FP16", {}, None, fits=False), REPAIRED.attempts[2]), (), "FP16 with blocks in FP32", fits=False
    )
    text = Page(render(replace(KEPT_BASELINE, baseline_repair=refused))).sections["The baseline needed a float fallback"].text
    assert text.startswith("The baseline in FP16 is refused by the builder.")
    assert "None that was tried meets it: FP16 with blocks in FP32." in text


def test_what_layers_got_names_the_trial_where_that_is_not_the_engine_that_is_kept() -> None:
    kept = Page(render(replace(KEPT_BASELINE, reached=(AchievedPrecision("conv", INT8, INT8, "k", None),), reached_in=3)))
    assert "The numbers: Asked for and got in trial 3, which is not what is kept" in kept.sections
    assert "The numbers: Asked for and got" not in kept.sections


def test_the_notes_are_listed() -> None:
    body = replace(KEPT_BASELINE, notes=("first", "second"))
    assert Page(render(body)).sections["What was done to the model and the data"].text == "first second"


def test_the_facts_of_the_job_are_a_table() -> None:
    rows = page_of("whole").sections["Environment and how to repeat it"].rows
    assert {row["what"]: row["value"] for row in rows} == {
        "calibration is validation": "no",
        "calibration samples": "60",
        "engine SHA-256": "a" * 64,
        "engine is exact on": "any processor",
        "float type": "fp32",
        "metric": "top1",
        "output weights": "logits: 0.75, values: 0.25",
        "outputs": "logits, values",
        "probes ran on": "CPUExecutionProvider",
        "processor": "some CPU",
        "threads": "1",
        "timing batch": "8",
        "validation held out of calibration": "no",
        "validation samples": "400",
    }


def test_the_configuration_is_given_as_a_file() -> None:
    text = page_of("whole").sections["Environment and how to repeat it"].text
    assert json.loads(text[text.index("{") :]) == BODY.config


@pytest.mark.parametrize(
    ("held_out", "shared", "metric", "arguments"),
    [
        (False, False, None, " --validation validation.npz"),
        (True, False, None, ""),
        (False, True, None, " --validation calibration.npz"),
        (True, True, None, ""),
        (True, False, "b" * 64, " --metric-model metric.onnx"),
    ],
)
def test_the_command_names_the_files_that_were_given(held_out: bool, shared: bool, metric: str | None, arguments: str) -> None:
    data = replace(BODY.data, validation_held_out_of_calibration=held_out, calibration_is_validation=shared, metric_model=metric)
    start = "onnx-trt-optimizer optimize model.onnx --calibration calibration.npz"
    assert command_of(replace(KEPT_BASELINE, data=data)) == f"{start}{arguments} --config config.json --output report/"


def test_a_job_whose_metric_was_a_function_is_repeated_from_python() -> None:
    data = replace(BODY.data, validation_held_out_of_calibration=False, calibration_is_validation=False, metric_model=FUNCTION)
    files = "'model.onnx', 'calibration.npz', 'validation.npz'"
    expected = f"onnx_trt_optimizer.optimize({files}, metric=FUNCTION, config=CONFIG, output='report/')"
    assert command_of(replace(KEPT_BASELINE, data=data)) == expected


def test_scores_of_errors_keep_their_digits() -> None:
    small = replace(RESULT.baseline, accuracy=9.45e-08)
    result = replace(RESULT, baseline=small, chosen=small, verdict=replace(VERDICT, budget=1e-7))
    page = Page(render(with_result(result, KEPT_BASELINE)))
    assert [row["accuracy"] for row in page.sections["The numbers: Engines"].rows] == ["9.45e-08", "9.45e-08"]
    assert page.tiles[2].endswith("allowed drop 1.00e-07")


def test_the_headline_of_psnr_is_in_decibels() -> None:
    verdict = replace(VERDICT, metric=Metric.PSNR, budget=110.0)
    assert Page(render(with_verdict(verdict, KEPT_BASELINE))).tiles[2].endswith("psnr on 400 samples; at least 40.00 dB")


PLACES: dict[str, Callable[[ReportBody, str], ReportBody]] = {
    "reason": lambda body, text: with_result(replace(body.result, reason=text), body),
    "warning": lambda body, text: with_result(replace(body.result, warnings=(text,)), body),
    "environment key": lambda body, text: with_result(replace(body.result, environment={**body.result.environment, text: 1}), body),
    "environment value": lambda body, text: with_result(replace(body.result, environment={**body.result.environment, "gpu": text}), body),
    "note": lambda body, text: replace(body, notes=(text,)),
    "layer name": lambda body, text: replace(body, layers=(*body.layers, layer(text))),
    "operator": lambda body, text: replace(body, layers=(replace(body.layers[0], op_type=text), *body.layers[1:])),
    "output": lambda body, text: replace(body, config={**body.config, "outputs": {text: "logits"}}),
    "weighted output": lambda body, text: replace(body, data=replace(body.data, output_weights={text: 1.0})),
    "order": lambda body, text: replace(body, trials=(replace(body.trials[0], order=text), *body.trials[1:])),
    "failure": lambda body, text: replace(body, trials=(*body.trials, failed(9, text))),
    "corrected layer": lambda body, text: replace(body, repairs=(replace(body.repairs[0], where=(text,)),)),
    "baseline": lambda body, text: replace(body, baseline_repair=replace(REPAIRED, kept=text)),
    "kernel": lambda body, text: replace(body, reached=(AchievedPrecision("conv", INT8, INT8, text, None),)),
    "pair": lambda body, text: replace(body, dependencies=(MeasuredPair(text, text, 0.1, 0.01, 64),)),
    "map": lambda body, text: replace(body, dependency_map=DependencyMap(("conv", text), ((), (0.1,)), (text,))),
    "end": lambda body, text: replace(body, search=replace(body.search, ended=text)),
    "provider": lambda body, text: replace(body, probes=replace(body.probes, providers=(text,), parts={text: 2, "CPU": 1})),
}


@pytest.mark.parametrize("text", ["</td></svg><script>", "'<b id=x onload=1>&lt;", "$x_1$ ünï\u2028--><b>"])
def test_text_from_outside_is_shown_as_text(text: str) -> None:
    body = BODY
    for number, place in enumerate(PLACES.values()):
        body = place(body, f"{text}{number}")
    plain, page = page_of("whole"), Page(render(body))
    for number, name in enumerate(PLACES):
        assert f"{text}{number}" in page.text, name
    assert page.tags <= plain.tags
    assert page.attributes <= plain.attributes
    assert len(page.plots) == len(plain.plots)
