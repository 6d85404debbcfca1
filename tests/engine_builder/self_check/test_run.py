from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import pytest

from engine_builder.errors import EngineError, StageCrashedError, UnsupportedTargetError
from engine_builder.self_check.cases import CASES
from engine_builder.self_check.result import Check, Outcome, SelfCheck
from engine_builder.self_check.run import DEFAULT_GPU, self_check
from engine_builder.self_check.stages import STAGES
from engine_builder.self_check.table import check_lines, engine_lines, verdict_line
from engine_builder.workspace.workspace import StageContext, Workspace
from tests.engine_builder.self_check_stages import CLOSE, NOT_ACHIEVED, ROOFLINE, PretendedStages, timing

NO_GPU = UnsupportedTargetError("there is no NVIDIA driver", fix="run it on a machine with an NVIDIA GPU")


def check(result: SelfCheck, name: str) -> Check:
    (found,) = (one for one in result.checks if one.name == name)
    return found


@pytest.fixture(scope="module")
def healthy() -> SelfCheck:
    return self_check(PretendedStages())


def test_on_a_healthy_gpu_every_check_runs_and_passes(healthy: SelfCheck) -> None:
    assert {one.outcome for one in healthy.checks} == {Outcome.PASSED}
    assert verdict_line(healthy).startswith("Verdict: pass. ")
    assert {"GPU", "CUDA graphs", "steady times", "prediction", "int8: accuracy on the GPU"} <= {one.name for one in healthy.checks}


def test_without_a_gpu_the_rest_runs_and_what_was_left_out_is_named() -> None:
    stages = PretendedStages({"cuda_visible": NO_GPU, "gpu_device": NO_GPU})
    result = self_check(stages)
    assert not result.failed
    assert "there is no NVIDIA driver" in check(result, "GPU").found
    assert all(word in check(result, "on the GPU").found for word in ("building", "inspector", "accuracy", "graphs", "predicted"))
    assert sum(call.startswith("rtx_build") for call in stages.calls) == len(CASES)
    assert "nothing was run or timed on a GPU" in verdict_line(result)


@pytest.mark.parametrize(
    ("stage", "answer", "names"),
    [
        ("names tensorrt", {"version": "11.9", "used": 64, "lacking": ["Builder.gone"]}, ["names in tensorrt"]),
        ("simulate int8", {"asked": {}, "comparison": {**CLOSE, "agreement": 0.3}}, ["int8: simulated accuracy"]),
        ("simulate fp16", {"asked": {}, "comparison": {**CLOSE, "kl": 0.5}}, ["fp16: simulated accuracy"]),
        ("gpu_run mixed", {"comparison": {**CLOSE, "kl": 0.1}}, ["mixed: accuracy on the GPU"]),
        ("gpu_run mixed", {"comparison": {**CLOSE, "agreement": 0.9}}, ["mixed: accuracy on the GPU"]),
        (
            "gpu_build int8",
            {"build_seconds": 1.0, "plan_bytes": 1, "reached": [NOT_ACHIEVED], "roofline": ROOFLINE["int8"]},
            ["int8: precision on the GPU"],
        ),
        ("gpu_build int8", StageCrashedError("stage gpu_build was ended by SIGSEGV", fix="see the log"), ["int8: engine"]),
        ("gpu_time", EngineError("the GPU is in use", fix="wait"), ["CUDA graphs"]),
        ("gpu_device", EngineError("the driver does not start", fix="check nvidia-smi"), ["GPU"]),
        ("prepare", EngineError("no", fix="yes"), ["network"]),
    ],
)
def test_a_check_that_goes_wrong_fails_and_says_what_to_do(stage: str, answer: Mapping[str, object] | Exception, names: list[str]) -> None:
    result = self_check(PretendedStages({stage: answer}))
    assert [one.name for one in result.failed] == names
    assert all(one.todo for one in result.failed)
    assert verdict_line(result).startswith("Verdict: FAIL")


def times(**changes: object) -> Mapping[str, object]:
    return {"timings": {case.name: {**timing(case.name), **changes} for case in CASES}, "warnings": []}


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"graph": False, "no_graph_because": "pycuda has no graphs"}, "CUDA graphs", "pycuda has no graphs"),
        ({"without_graph_ms": 0.001}, "CUDA graphs", "fp16"),
        ({"mad_ms": 0.4}, "steady times", "deviation over median"),
    ],
)
def test_times_that_cannot_be_trusted_fail(changes: Mapping[str, object], name: str, words: str) -> None:
    result = self_check(PretendedStages({"gpu_time": times(**changes)}))
    assert [one.name for one in result.failed] == [name]
    assert words in check(result, name).found


def test_a_wrong_prediction_fails_and_gives_the_row_that_corrects_it() -> None:
    slow = {"timings": {case.name: timing(case.name, factor=2.0, launch_ms=0.003) for case in CASES}, "warnings": []}
    result = self_check(PretendedStages({"gpu_time": slow}))
    assert [one.name for one in result.failed] == ["prediction"]
    assert "fp16 1.95" in check(result, "prediction").found
    assert result.gpus_row is not None
    assert (result.gpus_row["launch_us"], result.gpus_row["compute_share"]) == (3.0, 0.3)


def test_a_gpu_without_published_peaks_skips_the_prediction() -> None:
    device = {
        "name": "NVIDIA Unheard 9",
        "driver": "580",
        "tensorrt": "11.4",
        "cuda": "cuda.core",
        "compute_capability": [9, 9],
        "mig": False,
    }
    stages = PretendedStages({"gpu_device": device})
    result = self_check(stages)
    assert not result.failed
    assert check(result, "prediction").outcome is Outcome.SKIPPED
    assert f"for {DEFAULT_GPU}" in check(result, "fp16: tensorrt-rtx plan").found


def test_on_a_gpu_the_first_minutes_tell_most() -> None:
    stages = PretendedStages()
    self_check(stages, more=lambda result: stages.calls.append("tests"))
    order = ["cuda_visible", "names tensorrt", "gpu_first_build", "gpu_first_run", "tests", "prepare", "gpu_build fp16", "rtx_build fp16"]
    assert [call for call in stages.calls if call in order] == order


def test_every_check_is_told_when_it_is_known() -> None:
    told: list[int] = []
    result = self_check(PretendedStages(), on_change=lambda result: told.append(len(result.checks)))
    assert told == list(range(1, len(result.checks) + 1))


def test_plans_are_built_for_the_gpu_that_was_named() -> None:
    result = self_check(PretendedStages({"gpu_device": NO_GPU}), gpu="L4")
    assert "for L4: 1 of 1 layers as asked" in check(result, "fp16: tensorrt-rtx plan").found


def test_an_unknown_gpu_is_refused_before_any_work() -> None:
    stages = PretendedStages()
    with pytest.raises(UnsupportedTargetError, match="RTX 4099"):
        self_check(stages, gpu="RTX 4099")
    assert stages.calls == []


def test_the_table_shows_predicted_and_measured_times_side_by_side(healthy: SelfCheck) -> None:
    header, fp16, *_ = engine_lines(healthy)
    assert header.split()[:4] == ["engine", "plan", "MB", "predicted"]
    assert fp16.split() == ["fp16", "4.00", "0.4400", "4.00", "0.4400", "0.5280", "5000"]
    assert len({len(line) for line in engine_lines(healthy)}) == 1


def test_a_failed_check_is_printed_with_what_to_do_and_no_line_is_long() -> None:
    result = self_check(PretendedStages({"gpu_run mixed": {"comparison": {**CLOSE, "kl": 0.1}}}))
    lines = check_lines(result)
    place = next(index for index, line in enumerate(lines) if line.startswith("FAIL"))
    assert "to do: engine and simulation compute different things" in " ".join(line.strip() for line in lines[place : place + 4])
    assert max(map(len, lines)) <= 110


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx-cu13 is not installed")
def test_the_real_stages_pass_on_a_machine_without_a_gpu(tmp_path: Path) -> None:
    def run(stage: str, request: Mapping[str, object]) -> Mapping[str, object]:
        if stage in ("cuda_visible", "gpu_device"):
            raise NO_GPU
        if stage == "names" and request["package"] == "tensorrt":
            raise UnsupportedTargetError("not asked for here", fix="none")
        scratch = tmp_path / f"scratch-{len(list(tmp_path.iterdir()))}"
        scratch.mkdir()
        return STAGES[stage](request, StageContext(Workspace(tmp_path), scratch, lambda done, line: None))

    result = self_check(run)
    assert [(one.name, one.found) for one in result.failed] == []
    assert check(result, "int8: tensorrt-rtx plan").found.endswith("22 of 22 layers as asked (1 fp16, 21 int8)")
    assert all("roofline" in result.raw[f"rtx {case.name}"] for case in CASES)
