from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import cast

import pytest

from calibration.codec import json_from_value, value_from_json
from calibration.nonfinite import Special
from calibration.number_formats.precision import Precision
from calibration.ranges.range_table import RangeMethod, RangeTable
from engine_builder.engines.factory import CACHES
from engine_builder.records.assignment import PrecisionAssignment
from engine_builder.records.trial import failed_trial
from engine_builder.reporting.page import render
from engine_builder.workspace.workspace import FileRef
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


def test_the_timing_cache_is_shipped_where_one_was_kept(desk: Desk) -> None:
    found = desk.report(trials_of(0), KEPT)
    assert "timing.cache" not in cast(Mapping[str, object], found["artifacts"])
    assert "a finalist was not built again" in json.loads(desk.read(found, "report.json"))["notes"]
    desk.workspace.write_bytes(f"{CACHES}/nvidia-l4-cc8.9-tensorrt11.4.0.timing.cache", b"kernel times")
    assert desk.read(desk.report(trials_of(0), KEPT), "timing.cache") == "kernel times"


def test_a_layer_that_stays_float_for_what_it_reads_is_named(desk: Desk) -> None:
    ranges = RangeTable({"x": (0.0, 1.0)}, RangeMethod.MINMAX, 60, {f"{NAMES[1]}.out": (Special.NAN,)})
    body = json.loads(desk.read(desk.report(trials_of(0, 4), KEPT, ranges=ranges), "report.json"))
    why = f"writes '{NAMES[1]}.out', which holds NaN"
    assert [row["stays_float"] for row in body["layers"]] == [None, why, None, None]
    assert f"1 layer stays float because of what it reads or writes: '{NAMES[1]}' {why}" in body["notes"]


def test_an_improvement_is_described_as_the_contract_says(desk: Desk) -> None:
    trials = trials_of(0, 4, 2)
    found = desk.report(trials, improved(trials[2], verdict(3)))
    result = result_of(found)
    assert set(result) >= {"outcome", "latency_source", "baseline", "chosen", "speedup", "verdict", "engine", "environment"}
    assert result["outcome"] == "improved"
    assert result["speedup"] == pytest.approx(1.25)
    assert cast(Mapping[str, object], result["chosen"])["precisions"] == {"fp32": 2, "int8": 2}
    assert cast(Mapping[str, object], result["baseline"])["precisions"] == {"fp32": 4}
    assert set(cast(Mapping[str, object], result["verdict"])) >= {"answer", "metric", "drop", "interval", "confidence", "n", "selection"}
    assert result["engine"] == {"name": "engine.onnx", "sha256": "a" * 64, "size_bytes": 1000, "exact_on": None}
    assert set(cast(Mapping[str, object], found["artifacts"])) == {
        "report.json",
        "report.html",
        "assignment.json",
        "model.explicit.onnx",
        "triton.zip",
    }
    assert found["engine"] == {"file": "engine.onnx", "sha256": "a" * 64}


def test_warnings_are_in_the_result_and_on_the_page(desk: Desk) -> None:
    found = desk.report(trials_of(0), KEPT, warnings=(f"3 samples are {HOSTILE}: remove them",))
    assert result_of(found)["warnings"] == [f"3 samples are {HOSTILE}: remove them"]
    assert json.loads(desk.read(found, "report.json"))["result"] == result_of(found)
    assert f"<b>Warning:</b> 3 samples are {escape(HOSTILE)}: remove them." in desk.read(found, "report.html")
    assert "Warning" not in desk.read(desk.report(trials_of(0), KEPT), "report.html")


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
    trials = trials_of(0, 4, 2)
    found = desk.report(trials, improved(trials[2], verdict(3)))
    again = render(json.loads(desk.read(found, "report.json")))
    assert desk.read(found, "report.html") == again


def test_report_json_has_every_measurement(desk: Desk) -> None:
    trials = (*trials_of(0, 4, 2), failed_trial(3, "f", {"layer000": Precision.INT8}, "loss", "no such kernel"))
    found = desk.report(trials, improved(trials[2], verdict(3)))
    body = json.loads(desk.read(found, "report.json"))
    assert body["result"] == found["result"]
    assert [item["name"] for item in body["layers"]] == list(NAMES)
    assert [item["precision"] for item in body["layers"]] == ["int8", "int8", "fp32", "fp32"]
    assert body["layers"][0]["loss"] == pytest.approx(0.01)
    assert [item["failure"] for item in body["trials"]] == [None, None, None, "no such kernel"]
    assert [item["dependency"] for item in body["dependencies"]] == [-0.5, 0.001]  # the strongest first
    assert body["chosen"] == trials[2].fingerprint
    assert body["dependency_map"]["layers"] == list(NAMES)
    assert [item["loss"] for item in body["predictions"]] == pytest.approx([0.0, 0.01111 + 0.006, 0.011 + 0.001, 0.01])
    assert body["search"]["ended"] == "nothing left to try"
    assert body["data"]["validation_samples"] == 40
    assert body["data"]["validation_held_out_of_calibration"]


def test_two_reports_are_equal_byte_for_byte(desk: Desk) -> None:
    trials = trials_of(0, 4, 2)
    first = desk.report(trials, improved(trials[2], verdict(3)))
    assert desk.report(trials, improved(trials[2], verdict(3))) == first


def test_hostile_names_and_messages_are_escaped_everywhere(desk: Desk) -> None:
    names = tuple(f"{name}{HOSTILE}" for name in NAMES)
    trials = (*trials_of(0, 2), failed_trial(2, "f", {names[0]: Precision.INT8}, HOSTILE, HOSTILE))
    kept = {**KEPT, "verdict": json_from_value(verdict(300))}
    page = desk.read(desk.report(trials, kept, names=names, notes=(HOSTILE,)), "report.html")
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4 + 2 + 2 + 1 + 1 + 1  # layers, dependencies, trial, note, processor, config
