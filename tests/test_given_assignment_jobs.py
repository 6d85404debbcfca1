"""Jobs to which the user gives an assignment: tried first and judged like any, or built alone; and the circle back from a job's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from calibration.errors import InvalidConfigError
from calibration.number_formats.precision import Precision
from engine_builder.errors import EngineError
from engine_builder.records.assignment import PrecisionAssignment
from service.__main__ import main
from tests.driver import QUANTIZED_IS_FASTER, QUANTIZED_IS_SLOWER, Finished, Json, run_job, trials_of
from tests.fake_timer import FakeTimer
from tests.model_text import cnn, samples_for

BUDGET: Json = {"metric": "cosine", "min_relative": 0.9}
MIXED = {"*": "fp32", "Conv_c1": "int8"}


def assigned(finished: Finished) -> dict[str, str]:
    return dict(json.loads(finished.path(finished.outcome.artifacts["assignment.json"]).read_bytes()))


def given(folder: Path, timer: FakeTimer = QUANTIZED_IS_FASTER, **config: object) -> Finished:
    return run_job(folder, cnn(), config={"accuracy": BUDGET, **config}, timer=timer)


def orders(finished: Finished) -> list[str]:
    return [trial.order for trial in trials_of(finished)]


def test_an_assignment_is_tried_first_and_the_search_goes_on(tmp_path: Path) -> None:
    found = given(tmp_path, assignment=MIXED)
    first = trials_of(found)[1]
    assert (first.order, dict(first.precisions)) == ("given", {"Conv_c1": "int8"})
    assert orders(found)[2] == "all_low"
    assert found.result["outcome"] == "improved"


def test_with_two_trials_it_is_the_only_engine(tmp_path: Path) -> None:
    found = given(tmp_path, assignment=MIXED, search={"max_trials": 2})
    assert orders(found) == ["baseline", "given"]
    assert (found.result["outcome"], assigned(found)["Conv_c1"], assigned(found)["Conv_c2"]) == ("improved", "int8", "fp32")


def test_it_is_judged_like_any(tmp_path: Path) -> None:
    assert given(tmp_path, QUANTIZED_IS_SLOWER, assignment=MIXED, search={"max_trials": 2}).result["outcome"] == "baseline_kept"


@pytest.mark.long
def test_the_search_stays_with_its_precisions(tmp_path: Path) -> None:
    found = given(tmp_path, assignment=MIXED)
    assert {precision for trial in trials_of(found) for precision in trial.precisions.values()} == {"int8"}


def test_one_of_the_searchs_own_engines_keeps_its_name(tmp_path: Path) -> None:
    assert orders(given(tmp_path, assignment={"*": "int8"}, assignment_only=True)) == ["baseline", "all_low"]


def test_what_a_job_shipped_is_built_again_as_the_same_engine(tmp_path: Path) -> None:
    searched = given(tmp_path / "searched", precisions=["int8"])
    built = given(tmp_path / "built", assignment=assigned(searched), assignment_only=True)
    assert built.result["outcome"] == "built"
    assert built.outcome.engine.sha256 == searched.outcome.engine.sha256
    fingerprints = {PrecisionAssignment.from_json(assigned(job)).fingerprint for job in (searched, built)}
    assert len(fingerprints) == 1
    assert "assignment:" not in built.notes


def test_alone_it_is_built_whatever_its_speed_and_accuracy(tmp_path: Path) -> None:
    accuracy = {"metric": "cosine", "min_relative": 1.0}
    found = run_job(
        tmp_path, cnn(), config={"accuracy": accuracy, "assignment": {"*": "int8"}, "assignment_only": True}, timer=QUANTIZED_IS_SLOWER
    )
    assert (found.result["outcome"], found.result["speedup"]) == ("built", 0.5)
    assert found.verdict["answer"] == "not_met"
    assert cast(Json, found.result["chosen"])["precisions"] == {"int8": 4}
    assert "built without a search" in str(found.result["reason"])
    assert not any(call.startswith(("rank", "predict", "offers")) for call in found.driver.calls)


@pytest.mark.long
def test_where_it_misses_the_budget_it_is_built_with_corrections_as_in_a_job(tmp_path: Path) -> None:
    inside = given(tmp_path / "inside", assignment={"*": "int8"}, assignment_only=True)
    assert "correct" not in inside.driver.calls
    accuracy = {"metric": "cosine", "min_relative": 1.0}
    over = run_job(tmp_path / "over", cnn(), config={"accuracy": accuracy, "assignment": {"*": "int8"}, "assignment_only": True})
    assert "correct" in over.driver.calls
    candidates = [trial for trial in trials_of(over) if trial.is_candidate]
    assert over.report["chosen"] == candidates[-1].fingerprint
    assert len({tuple(trial.precisions.items()) for trial in candidates}) == 1


def test_an_assignment_of_floats_builds_the_float_model(tmp_path: Path) -> None:
    found = given(tmp_path, assignment={"*": "fp32"}, assignment_only=True)
    assert (found.result["outcome"], orders(found)) == ("built", ["baseline"])
    assert cast(Json, found.result["chosen"])["precisions"] == {"fp32": 4}


def test_a_layer_that_stays_in_floats_after_all_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import engine_builder.stages.trial as stage

    def without_conv2(inspection: object, precisions: dict[str, object], *rest: object) -> dict[str, object]:
        return {name: precision for name, precision in precisions.items() if name != "Conv_c2"}

    monkeypatch.setattr(stage, "legalized", without_conv2)
    found = given(tmp_path, assignment={"*": "int8"}, assignment_only=True)
    assert "1 of 4 layers are not as given" in found.notes
    assert "Conv_c2 (fp32, not int8)" in found.notes


@pytest.mark.parametrize(
    ("assignment", "words"), [({"Conv_c3": "int8", "*": "fp32"}, "no layer 'Conv_c3'"), ({"Conv_c1": "int8"}, "no precision for")]
)
def test_an_assignment_of_another_model_ends_the_job_before_anything_is_measured(
    assignment: dict[str, str], words: str, tmp_path: Path
) -> None:
    called: list[str] = []

    def note(name: str) -> None:
        called.append(name)

    with pytest.raises(InvalidConfigError, match=words):
        run_job(tmp_path, cnn(), config={"assignment": assignment}, broken=note)
    assert called == ["inspect"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"assignment": {"*": "fp8"}}, r"layer '\*' asks for fp8, expected one of fp32, int8"),
        ({"assignment": {"*": "fp16"}}, "asks for fp16"),
        ({"assignment": {"*": "int8"}, "precisions": ["int8_weights"]}, "which `precisions` leaves out"),
        ({"assignment_only": True}, "found no assignment"),
        ({"assignment": {"*": "int8"}, "assignment_only": True, "objective": {"min_speedup": 2.0}}, "objective"),
        ({"assignment": {"*": "int9"}}, "int9"),
    ],
)
def test_what_the_target_lacks_is_refused_at_once(config: Json, words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match=words):
        run_job(tmp_path, cnn(), config=config)


def test_an_engine_that_cannot_be_built_ends_the_job(tmp_path: Path) -> None:
    layers = ("Conv_c1", "Conv_c2", "Add_sum", "Gemm_logits")
    baseline = f"trial/{PrecisionAssignment.uniform(layers, Precision.FP32).fingerprint}"

    def broken(name: str) -> Exception | None:
        return EngineError("no such kernel", fix="none") if name.startswith("trial/") and name != baseline else None

    with pytest.raises(EngineError, match="the engine of the assignment: no such kernel"):
        run_job(tmp_path, cnn(), config={"assignment": MIXED, "assignment_only": True, "accuracy": BUDGET}, broken=broken)


@pytest.mark.usefixtures("stages_of_one_parent")
def test_what_recipe_writes_is_built_and_its_engine_has_the_same_fingerprint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, samples, recipe, engine = (tmp_path / name for name in ("model.onnx", "samples.npz", "recipe.json", "engine.onnx"))
    model.write_bytes(cnn().SerializeToString())
    np.savez(samples, **samples_for(cnn(), 40))  # type: ignore[arg-type]  # numpy's own options
    spec = ("--layer-precisions", "*:int8,Add_sum:fp32", "--default", "fp32")
    assert main(["recipe", str(model), *spec, "--output", str(recipe)]) == 0
    given = ("--assignment", str(recipe), "--calibration", str(samples), "--output", str(engine))
    assert main(["build", str(model), *given]) == 0
    printed = capsys.readouterr().out
    assert "The engine of the assignment is built" in printed
    fingerprint = PrecisionAssignment.from_json(json.loads(recipe.read_bytes())).fingerprint
    assert f"fingerprint {fingerprint}" in printed
    measured = json.loads((tmp_path / "engine.onnx.json").read_bytes())
    assert measured["assignment"] == json.loads(recipe.read_bytes())
    assert measured["result"]["outcome"] == "built"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "engine.onnx",
        "engine.onnx.json",
        "model.onnx",
        "recipe.json",
        "samples.npz",
    ]


@pytest.mark.parametrize(("options", "words"), [((), "found no assignment"), (("--assignment", "none.json"), "No such file")])
def test_build_needs_an_assignment(options: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["build", "model.onnx", "--calibration", "samples.npz", "--output", str(tmp_path / "engine.onnx"), *options]
    assert main(command) == 2
    assert words in capsys.readouterr().err
