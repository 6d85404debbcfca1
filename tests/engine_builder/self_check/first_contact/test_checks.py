from __future__ import annotations

from collections.abc import Mapping

import pytest

from engine_builder.errors import EngineError, StageCrashedError, StageTimeoutError, UnsupportedTargetError
from engine_builder.self_check.first_contact.checks import first_contact, first_engine
from engine_builder.self_check.first_contact.speeds import SIDES, SIZES
from engine_builder.self_check.result import Check, Outcome, SelfCheck
from tests.engine_builder.self_check_stages import SPEEDS, Answers, PretendedStages

NO_DRIVER = UnsupportedTargetError("there is no NVIDIA driver", fix="run it on a machine with an NVIDIA GPU")
NO_PYCUDA = UnsupportedTargetError("no CUDA package found: pycuda", fix="install one")
HANGS = StageTimeoutError("stage cuda_lock ran past its limit of 60 seconds", fix="see")
CRASHED = StageCrashedError("stage cuda_speed was ended by SIGSEGV before it had a result", fix="see")
STATE = {
    "by": "NvmlMonitor",
    "reading_ms": 0.4,
    "slowest_reading_ms": 2.0,
    "unknown": ["power_w"],
    "held_back_by": ["power cap"],
    "other_processes": 2,
}


def contact(instead: Answers) -> tuple[SelfCheck, bool, PretendedStages]:
    stages, result = PretendedStages(instead), SelfCheck()
    has_gpu = first_contact(result, stages)
    return result, has_gpu, stages


def check(result: SelfCheck, name: str) -> Check:
    (found,) = (one for one in result.checks if one.name == name)
    return found


def test_what_tells_most_comes_first() -> None:
    _, has_gpu, stages = contact({})
    assert has_gpu
    assert stages.calls == [
        "cuda_visible",
        "cuda_adapter cuda.core",
        "cuda_adapter pycuda",
        "cuda_lock",
        "cuda_state",
        "cuda_speed",
        "cuda_products",
    ]


def test_without_a_driver_nothing_else_is_tried() -> None:
    result, has_gpu, stages = contact({"cuda_visible": NO_DRIVER})
    assert not has_gpu
    assert stages.calls == ["cuda_visible"]
    assert [one.outcome for one in result.checks] == [Outcome.SKIPPED]


def test_one_cuda_package_is_enough() -> None:
    result, has_gpu, stages = contact({"cuda_adapter pycuda": NO_PYCUDA})
    assert has_gpu
    assert check(result, "CUDA by pycuda").outcome is Outcome.SKIPPED
    assert not result.failed
    assert "cuda_speed" in stages.calls


def test_without_any_cuda_package_the_rest_is_skipped_by_name() -> None:
    result, has_gpu, stages = contact({"cuda_adapter": NO_PYCUDA})
    assert not has_gpu
    assert {one.name for one in result.checks if "no CUDA package works" in one.found} == {
        "GPU lock",
        "GPU state",
        "conversions and launches",
        "products",
    }
    assert stages.calls[-1] == "cuda_adapter pycuda"


@pytest.mark.parametrize(
    ("stage", "error", "name"), [("cuda_lock", HANGS, "GPU lock"), ("cuda_speed", CRASHED, "conversions and launches")]
)
def test_a_step_that_hangs_or_crashes_costs_itself_alone(stage: str, error: Exception, name: str) -> None:
    result, has_gpu, stages = contact({stage: error})
    assert has_gpu
    assert [one.name for one in result.failed] == [name]
    assert str(error).splitlines()[0].split(":")[0] in check(result, name).found
    assert stages.calls[-1] == "cuda_products"


def test_every_step_has_its_seconds_also_one_that_fails() -> None:
    result, _, _ = contact({"cuda_lock": HANGS})
    assert {"visible", "adapter cuda.core", "lock", "speed"} <= set(result.seconds)
    assert all(seconds >= 0 for seconds in result.seconds.values())


def test_a_gpu_that_its_uuid_does_not_name_fails() -> None:
    usual = dict(PretendedStages()("cuda_visible", {}))
    result, _, _ = contact({"cuda_visible": {**usual, "same_by_uuid": False}})
    assert [one.name for one in result.failed] == ["driver"]


def test_cuda_core_without_a_graph_fails_and_pycuda_does_not() -> None:
    usual = dict(PretendedStages()("cuda_adapter", {}))
    result, _, _ = contact({"cuda_adapter": {**usual, "graph": False, "no_graph_because": "it cannot"}})
    assert [one.name for one in result.failed] == ["CUDA by cuda.core"]
    assert "no graph: it cannot" in check(result, "CUDA by pycuda").found


def test_what_the_state_leaves_open_and_disturbs_is_said() -> None:
    result, _, _ = contact({"cuda_state": STATE})
    said = check(result, "GPU state").found
    assert all(word in said for word in ("0.40 ms a reading", "not known: power_w", "2 other processes", "clock held back: power cap"))


def test_slow_readings_beside_runs_fail_but_not_those_of_nvidia_smi() -> None:
    failed = {
        by: [one.name for one in contact({"cuda_state": {**STATE, "by": by, "reading_ms": 80.0}})[0].failed]
        for by in ("NvmlMonitor", "SmiMonitor")
    }
    assert failed == {"NvmlMonitor": ["GPU state"], "SmiMonitor": []}


@pytest.mark.parametrize(("prior", "is_good"), [(4e-9, True), (1.5e-6, False), (4e-10, False)])
def test_a_prior_that_is_far_from_the_gpu_fails(prior: float, is_good: bool) -> None:
    speeds: Mapping[str, object] = {
        "prior_ms": prior,
        **{f"{size} elements": SPEEDS for size in SIZES},
        "launch_us_graph": 1.5,
        "launch_us_plain": 3.0,
    }
    result, _, _ = contact({"cuda_speed": speeds})
    found = check(result, "conversions and launches")
    assert (found.outcome is Outcome.PASSED) is is_good
    assert "4.00e-09 ms an element" in found.found


def test_refused_products_are_named_and_only_all_of_them_fail() -> None:
    some = {"fp16": {"ms": 0.1, "tops": 120.0, "graph": True}, "int8": {"refused": "not supported"}}
    result, _, _ = contact({"cuda_products": {f"side {side}": some for side in SIDES}})
    assert not result.failed
    assert "int8 at 512: not supported" in check(result, "products").found
    none = {f"side {side}": {"int8": {"refused": "not supported"}} for side in SIDES}
    assert [one.name for one in contact({"cuda_products": none})[0].failed] == ["products"]


def test_a_first_engine_that_is_not_built_is_not_run() -> None:
    stages, result = PretendedStages({"gpu_first_build": EngineError("TensorRT refused it", fix="see")}), SelfCheck()
    first_engine(result, stages)
    assert stages.calls == ["gpu_first_build"]
    assert [one.name for one in result.failed] == ["first engine: build"]


@pytest.mark.parametrize(
    ("stage", "key", "value", "name"),
    [("gpu_first_build", "kernels", [], "first engine: build"), ("gpu_first_run", "median_ms", 0.0, "first engine: run")],
)
def test_an_engine_without_kernels_or_time_fails(stage: str, key: str, value: object, name: str) -> None:
    result = SelfCheck()
    usual = dict(PretendedStages()(stage, {}))
    first_engine(result, PretendedStages({stage: {**usual, key: value}}))
    assert [one.name for one in result.failed] == [name]


def test_a_plan_that_keeps_its_weights_fails_and_one_that_loses_them_is_told_with_both_sizes() -> None:
    usual = dict(PretendedStages()("gpu_first_strip", {}))
    name = "first engine: weights stripped and put back"
    for size, failed in ((200, []), (1000, [name])):
        result = SelfCheck()
        first_engine(result, PretendedStages({"gpu_first_strip": {**usual, "plan_bytes": size}}))
        assert [one.name for one in result.failed] == failed
        assert f"a plan of {size:,} bytes in the place of 1,000" in check(result, name).found


def test_weights_that_do_not_go_back_fail_their_own_check_alone() -> None:
    result = SelfCheck()
    first_engine(result, PretendedStages({"gpu_first_strip": EngineError("2 are missing", fix="see")}))
    assert [one.name for one in result.failed] == ["first engine: weights stripped and put back"]
