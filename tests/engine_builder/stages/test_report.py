from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import pytest

from calibration.codec import json_from_value, value_from_json
from calibration.nonfinite import Special
from calibration.number_formats.precision import Precision
from calibration.ranges.range_table import RangeMethod, RangeTable
from engine_builder.config.config import config_from_json, config_json
from engine_builder.engines.factory import CACHES
from engine_builder.records.assignment import PrecisionAssignment
from engine_builder.records.corrections import Correction, CorrectionKind
from engine_builder.records.trial import failed_trial
from engine_builder.reporting.body.report_body import body_from_json, body_json
from engine_builder.reporting.page import render
from engine_builder.workspace.workspace import FileRef
from tests.engine_builder.golden_report import GOLDEN, differences, golden_json, golden_report
from tests.engine_builder.report_desk import (
    HOSTILE,
    KEPT,
    NAMES,
    OWN,
    Desk,
    improved,
    result_of,
    trials_of,
    verdict,
)
from tests.engine_builder.reporting.page_reader import Page
from tests.engine_builder.search.fake_world import FakeWorld


def test_the_timing_cache_is_shipped_where_one_was_kept(desk: Desk) -> None:
    found = desk.report(trials_of(0), KEPT)
    assert "timing.cache" not in cast(Mapping[str, object], found["artifacts"])
    assert "a finalist was not built again" in json.loads(desk.read(found, "report.json"))["notes"]
    desk.workspace.write_bytes(f"{CACHES}/nvidia-l4-cc8.9-tensorrt11.4.0.timing.cache", b"kernel times")
    assert desk.read(desk.report(trials_of(0), KEPT), "timing.cache") == "kernel times"


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx-cu13 is not installed")
def test_what_int8_costs_beside_its_kernels_is_said_where_layers_may_have_it(desk: Desk) -> None:
    rtx = {"target": "tensorrt-rtx", "gpu": "L4"}

    def notes(eligible: Mapping[str, tuple[Precision, ...]], target: Mapping[str, str] | None) -> str:
        found = desk.report(trials_of(0), KEPT, target=target, eligible=eligible)
        return " ".join(json.loads(desk.read(found, "report.json"))["notes"])

    some = {NAMES[0]: (Precision.FP8, Precision.INT8)}  # a convolution
    assert "follows every INT8 convolution with a second kernel" in notes(some, rtx)
    assert "second kernel" not in notes({NAMES[0]: (Precision.FP8,)}, rtx)
    assert "second kernel" not in notes(some, None)


def test_what_the_runtime_says_of_the_layers_of_a_kept_baseline_is_shipped(desk: Desk) -> None:
    found = desk.report(trials_of(0), KEPT)
    assert "engine.layers.json" not in cast(Mapping[str, object], found["artifacts"])
    desk.workspace.write_bytes("layers.json", b"what it says")  # beside the baseline's engine
    assert desk.read(desk.report(trials_of(0), KEPT), "engine.layers.json") == "what it says"


def test_a_layer_that_stays_float_for_what_it_reads_is_named(desk: Desk) -> None:
    ranges = RangeTable({"x": (0.0, 1.0)}, RangeMethod.MINMAX, 60, {f"{NAMES[1]}.out": (Special.NAN,)})
    body = json.loads(desk.read(desk.report(trials_of(0, 4), KEPT, ranges=ranges), "report.json"))
    why = f"writes '{NAMES[1]}.out', which holds NaN"
    assert [row["stays_float"] for row in body["layers"]] == [None, why, None, None]
    assert f"1 layer stays float because of what it reads or writes: '{NAMES[1]}' {why}" in body["notes"]


def test_an_improvement_comes_with_its_engine_and_every_artifact(desk: Desk) -> None:
    found = golden_report(desk)
    assert found["engine"] == {"file": "engine.onnx", "sha256": "a" * 64}
    assert set(cast(Mapping[str, object], found["artifacts"])) == {
        "report.json",
        "report.html",
        "assignment.json",
        "model.explicit.onnx",
        "triton.zip",
    }


def test_warnings_are_in_the_result_and_on_the_page(desk: Desk) -> None:
    found = desk.report(trials_of(0), KEPT, warnings=(f"3 samples are {HOSTILE}: remove them",))
    assert result_of(found)["warnings"] == [f"3 samples are {HOSTILE}: remove them"]
    assert json.loads(desk.read(found, "report.json"))["result"] == result_of(found)
    lead = Page(desk.read(found, "report.html")).sections["Optimization report"].text
    assert f"Warning: 3 samples are {HOSTILE}: remove them." in lead
    assert "Warning" not in Page(desk.read(desk.report(trials_of(0), KEPT), "report.html")).text


def test_what_could_not_be_analysed_is_a_warning_and_said_in_the_place_of_the_analysis(desk: Desk) -> None:
    failure = "the stage sensitivity/0 failed, so no losses are known: signal 11"
    found = desk.report(trials_of(0, 4), KEPT, is_analysed=False, failures=(failure,))
    assert result_of(found)["warnings"] == [failure]
    body = json.loads(desk.read(found, "report.json"))
    assert body["not_analysed"] == f"Sensitivities and dependencies could not be measured: {failure}."


def test_the_report_says_why_no_costly_corrections_were_measured(desk: Desk) -> None:
    trials = trials_of(0, 4)
    found = desk.report(trials, improved(trials[1], verdict(0)), are_corrections_left=True)
    why = json.loads(desk.read(found, "report.json"))["not_corrected"]
    left_out = "No corrections but those of biases were measured"
    assert why == f"{left_out}: the fastest engine keeps the accuracy budget without them, so they decide nothing."
    assert why in Page(desk.read(found, "report.html")).sections["Corrections"].text


def test_an_engine_that_ships_without_the_corrections_that_were_measured_is_said_to(desk: Desk) -> None:
    repairs = (Correction(CorrectionKind.SMOOTH_QUANT, NAMES[:1], 0.03, 0.02, 0.001, 16, kept=True),)
    baseline, plain = trials_of(0, 4)
    for engine, is_said in ((plain, False), (replace(plain, made_with=FileRef("biases.json", "3" * 64)), True)):
        found = desk.report((baseline, engine), improved(engine, verdict(0)), repairs=repairs)
        assert json.loads(desk.read(found, "report.json"))["not_corrected"] is None
        said = Page(desk.read(found, "report.html")).sections["Corrections"].text
        assert ("built before the others were measured" in said) is is_said


def test_a_kept_baseline_ships_the_users_own_file(desk: Desk) -> None:
    found = desk.report(trials_of(0, 4), KEPT)
    result = result_of(found)
    assert result["outcome"] == "baseline_kept"
    assert result["chosen"] == result["baseline"]
    assert result["speedup"] == 1.0
    assert desk.workspace.path(value_from_json(FileRef, found["engine"])).read_bytes() == OWN
    assert "model.explicit.onnx" not in cast(Mapping[str, object], found["artifacts"])


def test_the_assignment_is_that_of_the_chosen_engine(desk: Desk) -> None:
    trials = trials_of(0, 4, 2)
    found = desk.report(trials, improved(trials[2], verdict(3)))
    assignment = PrecisionAssignment.from_json(json.loads(desk.read(found, "assignment.json")))
    assert [name for name in NAMES if assignment[name] is Precision.INT8] == list(NAMES[:2])


def test_the_assignment_of_a_kept_baseline_is_all_float(desk: Desk) -> None:
    found = desk.report(trials_of(0, 4), KEPT)
    assert set(json.loads(desk.read(found, "assignment.json")).values()) == {"fp32"}


def test_the_page_is_made_of_report_json_alone(desk: Desk) -> None:
    desk.is_drawn = True
    trials = trials_of(0, 4, 2)
    found = desk.report(trials, improved(trials[2], verdict(3)))
    again = render(body_from_json(json.loads(desk.read(found, "report.json"))))
    assert desk.read(found, "report.html") == again


def test_report_json_is_the_reviewed_one(desk: Desk) -> None:
    assert differences(golden_json(desk), json.loads(GOLDEN.read_text(encoding="utf-8"))) == []


def test_report_json_has_the_effective_configuration(desk: Desk) -> None:
    config = json.loads(desk.read(golden_report(desk), "report.json"))["config"]
    assert config == config_json(config_from_json({"accuracy": {"metric": "top1", "min_relative": 0.9}, "outputs": {HOSTILE: "logits"}}))


def test_report_json_is_read_back_as_what_it_was_written_from(desk: Desk) -> None:
    found = json.loads(desk.read(golden_report(desk), "report.json"))
    assert body_json(body_from_json(found)) == found


def test_the_result_of_the_stage_is_that_of_report_json(desk: Desk) -> None:
    found = golden_report(desk)
    assert json.loads(desk.read(found, "report.json"))["result"] == result_of(found)


def test_two_reports_are_equal_byte_for_byte(desk: Desk) -> None:
    desk.is_drawn = True
    trials = trials_of(0, 4, 2)
    first = desk.report(trials, improved(trials[2], verdict(3)))
    assert desk.report(trials, improved(trials[2], verdict(3))) == first


def test_hostile_names_and_messages_are_escaped_everywhere(desk: Desk) -> None:
    desk.is_drawn = True
    names = tuple(f"{name}{HOSTILE}" for name in NAMES)
    trials = (*trials_of(0, 2), failed_trial(2, "f", {names[0]: Precision.INT8}, HOSTILE, HOSTILE))
    kept = {**KEPT, "verdict": json_from_value(verdict(300))}
    page = Page(desk.read(desk.report(trials, kept, names=names, notes=(HOSTILE,)), "report.html"))
    assert "script" not in page.tags
    assert page.text.count("<script>") >= 4 + 2 + 2 + 1 + 1 + 1  # layers, dependencies, trial, note, processor, config


def test_a_job_without_an_analysis_says_why_and_draws_what_it_has(desk: Desk) -> None:
    desk.is_drawn = True
    trials = trials_of(0, 4)
    found = desk.report(trials, improved(trials[1], verdict(0)), is_analysed=False)
    body = json.loads(desk.read(found, "report.json"))
    assert body["not_analysed"].startswith("Sensitivities and dependencies were not measured: the accuracy budget stood in")
    assert [layer["loss"] for layer in body["layers"]] == [None] * len(body["layers"])
    assert (body["orders"], body["dependencies"], body["traces"]) == ({}, [], [])
    assert {guess["loss"] for guess in body["predictions"]} == {None}
    page = desk.read(found, "report.html")
    assert "analysis: full" in page
    assert "NaN" not in page


def test_a_job_that_reached_a_limit_before_its_analysis_names_no_layers(desk: Desk) -> None:
    trials = trials_of(0, 4, world=FakeWorld((0.1,) * 4))
    found = desk.report(trials, KEPT, is_analysed=False)
    assert str(result_of(found)["reason"]).split(".")[0] == "The only low-precision engine tried missed the accuracy budget"
