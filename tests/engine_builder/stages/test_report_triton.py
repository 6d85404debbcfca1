"""The Triton repository among a job's artifacts: of the engine that is kept, or a note that says why there is none."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from typing import cast

import onnx
import onnx.parser
import pytest

from calibration.codec import json_from_value, value_from_json
from calibration.data.sample_axes import SampleAxes
from engine_builder.backends.engine_tensors import EngineTensor, EngineTensors
from engine_builder.workspace.workspace import FileRef
from tests.engine_builder.report_desk import ENGINE, KEPT, OWN, Desk, improved, trials_of, verdict


@pytest.mark.parametrize("improves", [True, False])
def test_the_triton_repository_holds_the_engine_that_is_kept(desk: Desk, improves: bool) -> None:
    trials = trials_of(0, 4, 2)
    found = desk.report(trials, improved(trials[2], verdict(3)) if improves else KEPT)
    ref = value_from_json(FileRef, cast(Mapping[str, object], found["artifacts"])["triton.zip"])
    with zipfile.ZipFile(desk.workspace.path(ref)) as archive:
        assert archive.namelist() == ["model/config.pbtxt", "model/1/model.onnx"]
        assert archive.read("model/1/model.onnx") == (ENGINE if improves else OWN)
        assert "max_batch_size: 8\n" in archive.read("model/config.pbtxt").decode()  # the larger of the two batches of the job


def test_without_a_triton_repository_the_notes_say_why(desk: Desk) -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> odd (complex64[N] x) => (complex64[N] y) { y = Identity(x) }'
    found = desk.report(trials_of(0, 4), KEPT, model=onnx.parser.parse_model(text).SerializeToString())
    assert "triton.zip" not in cast(Mapping[str, object], found["artifacts"])
    assert "no triton.zip: input 'x' has the type complex64" in json.loads(desk.read(found, "report.json"))["notes"][-1]


@pytest.mark.parametrize("calls", [{"axes": SampleAxes({"x": 1})}, {"is_batch_fixed": True}])
def test_triton_may_not_batch_what_does_not_count_samples_first_or_takes_a_fixed_number(desk: Desk, calls: Mapping[str, object]) -> None:
    found = desk.report(trials_of(0, 4), KEPT, calls=calls)
    ref = value_from_json(FileRef, cast(Mapping[str, object], found["artifacts"])["triton.zip"])
    with zipfile.ZipFile(desk.workspace.path(ref)) as archive:
        assert "max_batch_size: 0\n" in archive.read("model/config.pbtxt").decode()


def plan_kept(desk: Desk, tensors: EngineTensors | None, **target: str) -> dict[str, object]:
    trials = trials_of(0, 4, 2)
    plan = desk.workspace.write_bytes("engine.plan", b"plan")
    chosen = improved(trials[2], verdict(3))
    return desk.report(trials, {**chosen, "engine": json_from_value(plan), "tensors": json_from_value(tensors)}, target=target)


def test_a_plan_goes_into_the_repository_with_its_own_tensors(desk: Desk) -> None:
    x, y = EngineTensor("x", "float32", (None, 3)), EngineTensor("y", "float32", (None, 2))
    found = plan_kept(desk, EngineTensors((x,), (y,), ({"x": ((1, 3), (4, 3), (32, 3))},)))
    ref = value_from_json(FileRef, cast(Mapping[str, object], found["artifacts"])["triton.zip"])
    with zipfile.ZipFile(desk.workspace.path(ref)) as archive:
        assert archive.read("model/1/model.plan") == b"plan"
        assert "max_batch_size: 32\n" in archive.read("model/config.pbtxt").decode()


def test_of_a_plan_that_triton_does_not_load_the_notes_say_so(desk: Desk) -> None:
    found = plan_kept(desk, None, target="tensorrt-rtx", gpu="RTX 4090")
    assert "triton.zip" not in cast(Mapping[str, object], found["artifacts"])
    assert json.loads(desk.read(found, "report.json"))["notes"][-1] == "no triton.zip: Triton loads no plans of this target"
