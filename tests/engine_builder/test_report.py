from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest

from calibration.codec import json_from_value, value_from_json
from calibration.dependency import PairTest
from calibration.layers import Layer, LayerKind
from calibration.metrics import Metric, OutputKind
from calibration.precision import Precision
from calibration.sensitivity import Sensitivity, SensitivityTable
from calibration.singles import Decision
from calibration.verdict import AccuracyVerdict, Answer, Budget, Selection, judge
from engine_builder.assignment import PrecisionAssignment
from engine_builder.building import CACHES
from engine_builder.config import config_from_json, config_json
from engine_builder.inspection import Inspection
from engine_builder.report import report
from engine_builder.report_page import render
from engine_builder.search.trial import Trial, failed_trial
from engine_builder.workspace import FileRef, StageContext, Workspace
from tests.engine_builder.search.fake_world import FakeWorld

HOSTILE = '<script>alert("x")</script>&\''
WORLD = FakeWorld((0.0001,) * 4, budget=0.00025)
NAMES = ("layer000", "layer001", "layer002", "layer003")
OWN = onnx.parser.parse_model(
    '<ir_version: 8, opset_import: ["": 17]> own (float[N,3] x) => (float[N,3] y) { y = Relu(x) }'
).SerializeToString()
ENGINE = onnx.parser.parse_model(
    '<ir_version: 8, opset_import: ["": 17]> fast (float[N,3] x) => (float[N,3] y) { y = Relu(x) }'
).SerializeToString()
NOTHING = FileRef("nothing", "0" * 64)


def layer(name: str) -> Layer:
    return Layer(name, "Conv", LayerKind.WEIGHTED, ("x",), "w", 0, None, f"{name}.out", (name,), 1_234_567, 100)


def inspection(names: Sequence[str], notes: Sequence[str]) -> Inspection:
    return Inspection(
        prepared=NOTHING,
        float_type=Precision.FP32,
        baseline_type=Precision.FP32,
        notes=tuple(notes),
        layers=tuple(layer(name) for name in names),
        kinds=(OutputKind.LOGITS,),
        metric=Metric.TOP1,
        scored=(0,),
        calibration=NOTHING,
        calibration_samples=60,
        validation=NOTHING,
        validation_samples=40,
        held_out=True,
        shared_data=False,
        reference=NOTHING,
        scores=NOTHING,
        baseline_scores=NOTHING,
        timing_shapes={"x": (1, 3)},
        engine_shapes={},
        scoring_batch=8,
        batch=8,
        is_batch_fixed=False,
        sample_seconds=0.1,
    )


def verdict(lost: int, *, min_relative: float = 0.9, samples: int = 400) -> AccuracyVerdict:
    baseline, engine = np.ones(samples), np.ones(samples)
    engine[:lost] = 0.0
    return judge(Metric.TOP1, baseline, engine, Budget(min_relative=min_relative), selection=Selection.SHARED, rng=np.random.default_rng(0))


MILLISECONDS = {"median": 10.0, "p95": 11.0, "mad": 0.05, "runs": 100}
KEPT: dict[str, object] = {
    "judged": [],
    "verdict": json_from_value(verdict(0)),
    "chosen": None,
    "ratio": 1.0,
    "least_gain": 0.01,
    "latency_ms": {"baseline": MILLISECONDS},
    "spread": {},
    "engine": None,
    "explicit": None,
    "baseline_accuracy": 0.9,
    "baseline_precisions": {"fp32": 4},
    "baseline_size_bytes": 4_000_000,
    "environment": {"processor": HOSTILE, "threads": 1},
    "tensors": None,
}


def improved(trial: Trial, answer: AccuracyVerdict) -> dict[str, object]:
    return {
        **KEPT,
        "judged": [judged(trial, answer)],
        "verdict": json_from_value(answer),
        "chosen": trial.fingerprint,
        "ratio": 0.8,
        "least_gain": 0.01,
        "latency_ms": {"baseline": MILLISECONDS, trial.fingerprint: {**MILLISECONDS, "median": 8.0}},
        "spread": {trial.fingerprint: {"ratio": 0.8, "mad": 0.01}},
        "engine": {"file": "engine.onnx", "sha256": "a" * 64},
        "explicit": {"file": "model.explicit.onnx", "sha256": "b" * 64},
    }


def judged(trial: Trial, answer: AccuracyVerdict) -> dict[str, object]:
    return {"fingerprint": trial.fingerprint, "verdict": json_from_value(answer)}


def trials_of(*lengths: int, world: FakeWorld = WORLD) -> tuple[Trial, ...]:
    orders = {0: "baseline", len(world.layers): "all_low"}
    lows = [world.low(world.layers[:length]) for length in lengths]
    return tuple(world.trial(index, low, orders.get(len(low), "loss")) for index, low in enumerate(lows))


class Desk:
    """A workspace with what the report reads."""

    def __init__(self, root: Path) -> None:
        self.workspace = Workspace(root / "workspace")
        self.context = StageContext(self.workspace, root, lambda fraction, message: None)

    def report(
        self,
        trials: Sequence[Trial],
        judgement: Mapping[str, object],
        *,
        names: Sequence[str] = NAMES,
        notes: Sequence[str] = ("opset 11 converted to 17",),
        confidence: float | None = None,
        model: bytes = OWN,
        finalists: Sequence[Trial] | None = None,
    ) -> dict[str, object]:
        loss = [10.0 ** -(index + 2) for index in range(len(names))]
        rows = tuple(Sensitivity(name, Precision.INT8, value, value / 10, None, None) for name, value in zip(names, loss, strict=True))
        first, second = (Decision(name, Precision.INT8) for name in names[:2])
        files = {
            "inspection": self.workspace.write_json("inspection.json", json_from_value(inspection(names, notes))),
            "table": self.workspace.write_json("table.json", json_from_value(SensitivityTable(rows, 60, 32, 4.0, ()))),
            "model": self.workspace.write_bytes("model.onnx", model),
            "engine": self.workspace.write_bytes("engine.onnx", ENGINE),
            "dependency": self.workspace.write_arrays(
                "dependency.npz",
                interaction=0.001 * (1.0 - np.eye(len(names))),
                error=np.zeros((len(names),) * 2),
                loss_covariance=np.zeros((len(names),) * 2),
            ),
        }
        accuracy = {"metric": "top1", "min_relative": 0.9, "confidence": confidence}
        request = {
            **{name: json_from_value(ref) for name, ref in files.items()},
            "config": config_json(config_from_json({"accuracy": accuracy, "outputs": {HOSTILE: "logits"}})),
            "trials": json_from_value(tuple(trials)),
            "finalists": json_from_value(tuple((trials if judgement["judged"] else ()) if finalists is None else finalists)),
            "notes": ["a finalist was not built again"],
            "verdict": judgement,
            "tests": json_from_value((PairTest(first, second, 0.001, 0.0001, 60), PairTest(first, second, -0.5, 0.1, 60))),
            "orders": {"loss": json_from_value((first, second))},
            "search": {"ended": "nothing left to try", "trials": len(trials), "seconds": 3.0},
            "providers": ["CPUExecutionProvider"],
            "forecasts": [],
        }
        return report(request, self.context)

    def read(self, found: Mapping[str, object], name: str) -> str:
        return self.workspace.path(value_from_json(FileRef, cast(Mapping[str, object], found["artifacts"])[name])).read_text()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_the_timing_cache_is_shipped_where_one_was_kept(desk: Desk) -> None:
    found = desk.report(trials_of(0), KEPT)
    assert "timing.cache" not in cast(Mapping[str, object], found["artifacts"])
    assert "a finalist was not built again" in json.loads(desk.read(found, "report.json"))["notes"]
    desk.workspace.write_bytes(f"{CACHES}/nvidia-l4-cc8.9-tensorrt11.4.0.timing.cache", b"kernel times")
    assert desk.read(desk.report(trials_of(0), KEPT), "timing.cache") == "kernel times"


def result_of(found: Mapping[str, object]) -> Mapping[str, object]:
    return cast(Mapping[str, object], found["result"])


def reason_of(found: Mapping[str, object]) -> str:
    return str(result_of(found)["reason"])


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
    assert result["engine"] == {"name": "engine.onnx", "sha256": "a" * 64, "size_bytes": 1000}
    assert set(cast(Mapping[str, object], found["artifacts"])) == {
        "report.json",
        "report.html",
        "assignment.json",
        "model.explicit.onnx",
        "triton.zip",
    }
    assert found["engine"] == {"file": "engine.onnx", "sha256": "a" * 64}


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


def test_the_reason_for_an_improvement(desk: Desk) -> None:
    trials = trials_of(0, 4, 2)
    reason = reason_of(desk.report(trials, improved(trials[2], verdict(3))))
    assert reason == "The fastest engine that keeps the accuracy budget, of 2 low-precision engines tried."


def test_the_reason_says_where_the_fastest_was_left_for_a_safer_one(desk: Desk) -> None:
    trials = trials_of(0, 4, 2)
    answer = improved(trials[2], verdict(3))
    answer["spread"] = {trials[1].fingerprint: {"ratio": 0.795, "mad": 0.01}, trials[2].fingerprint: {"ratio": 0.8, "mad": 0.01}}
    reason = reason_of(desk.report(trials, answer))
    assert reason.startswith(
        "The safest engine among those that keep the accuracy budget and that the timing cannot tell from the fastest, of 2"
    )


def test_the_reason_says_so_where_everything_is_low(desk: Desk) -> None:
    trials = trials_of(0, 4, world=FakeWorld((0.0,) * 4))
    reason = reason_of(desk.report(trials, improved(trials[1], verdict(0))))
    only = "The only low-precision engine tried: it keeps the accuracy budget."
    assert reason == f"{only} Every layer that can be low is low."


def test_the_reason_says_that_finalists_failed_in_the_verdict(desk: Desk) -> None:
    trials = trials_of(0, 4, 2)
    assert "failed as they were built and timed for the verdict" in reason_of(desk.report(trials, KEPT, finalists=trials[2:]))


def test_the_reason_counts_the_engines_that_missed_the_budget(desk: Desk) -> None:
    trials = trials_of(0, 4, 2, world=FakeWorld((0.1,) * 4))
    assert reason_of(desk.report(trials, KEPT)).startswith("None of 2 low-precision engines kept the accuracy budget.")


def test_the_reason_names_the_layers_that_stood_in_the_way(desk: Desk) -> None:
    trials = trials_of(0, 4, world=FakeWorld((0.1,) * 4))
    reason = reason_of(desk.report(trials, KEPT))
    assert reason.startswith("The only low-precision engine tried missed the accuracy budget.")
    assert "layer000 (int8), layer001 (int8)" in reason


def test_the_reason_where_no_engine_could_be_built(desk: Desk) -> None:
    trials = (*trials_of(0), failed_trial(1, "f", {"layer000": Precision.INT8}, "all_low", "no such kernel"))
    assert reason_of(desk.report(trials, KEPT)) == "No low-precision engine could be built: no such kernel"


def test_the_reason_where_engines_were_slower(desk: Desk) -> None:
    world = dataclasses.replace(WORLD, gains=(-0.01,) * 4)
    reason = reason_of(desk.report(trials_of(0, 2, world=world), KEPT))
    assert reason == "Engines kept the accuracy budget, but none was faster than the baseline: the best took 1.02 of its time."


def test_the_reason_says_that_the_machine_was_busy(desk: Desk) -> None:
    first, *others = trials_of(0, 2, world=dataclasses.replace(WORLD, gains=(-0.01,) * 4))
    assert first.latency is not None
    held_up = dataclasses.replace(first, latency=dataclasses.replace(first.latency, p95_ms=5 * first.latency.median_ms))
    reason = reason_of(desk.report((held_up, *others), KEPT))
    assert "the slowest 5% of the baseline's calls took 5 times the median or more" in reason


def test_a_best_engine_whose_latency_is_predicted_is_not_said_to_have_taken_it(desk: Desk) -> None:
    world = dataclasses.replace(WORLD, gains=(-0.01,) * 4)
    reason = reason_of(desk.report(trials_of(0, 2, world=world), {**KEPT, "least_gain": 0.2}))
    assert reason.endswith("the best is predicted to take 1.02 of its time.")


@pytest.mark.parametrize(("lost", "confidence"), [(0, None), (0, 0.95), (30, None)])
def test_the_reason_where_engines_passed_the_verdict_but_were_within_the_spread(desk: Desk, lost: int, confidence: float | None) -> None:
    trials = trials_of(0, 2)
    answer = verdict(lost)
    assert answer.answer is (Answer.MET_ON_SAMPLE if lost else Answer.MET)
    reason = reason_of(desk.report(trials, {**KEPT, "judged": [judged(trials[1], answer)]}, confidence=confidence))
    assert reason == "Engines kept the accuracy budget, but none was faster than the baseline by more than the spread of the timing."


def test_the_reason_where_none_passed_at_the_confidence_asked_for(desk: Desk) -> None:
    trials = trials_of(0, 2)
    reason = reason_of(desk.report(trials, {**KEPT, "judged": [judged(trials[1], verdict(30))]}, confidence=0.95))
    assert reason == "Engines kept the accuracy budget in the search, but none passed the verdict at the confidence asked for, 95%."


def test_the_reason_where_none_passed_and_no_confidence_was_asked_for(desk: Desk) -> None:
    trials = trials_of(0, 2)
    reason = reason_of(desk.report(trials, {**KEPT, "judged": [judged(trials[1], verdict(300))]}))
    assert reason == "Engines kept the accuracy budget in the search, but none passed the verdict."


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
