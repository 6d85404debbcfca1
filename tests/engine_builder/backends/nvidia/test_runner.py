"""Running an engine: what is set, copied and refused, on a TensorRT that pretends."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine_builder.backends.engine_tensors import EngineTensor
from engine_builder.backends.nvidia.gpu_timing import time_engines
from engine_builder.backends.nvidia.runner import TensorRtRunner
from engine_builder.backends.nvidia.tensorrt_api import USED_API
from engine_builder.errors import BuildError, EngineError
from tests.engine_builder import fake_tensorrt as fakes
from tests.engine_builder.fake_gpu import FakeGpu
from tests.engine_builder.fake_tensorrt import fake_tensorrt

SIZES = np.array([3], dtype=np.int64)


def batch(rows: int) -> dict[str, NDArray[np.generic]]:
    return {"x": np.arange(rows * 3, dtype=np.float32).reshape(rows, 3), "sizes": SIZES}


def runner(folder: Path, plan: bytes = b"double", gpu: FakeGpu | None = None) -> TensorRtRunner:
    path = folder / "engine.plan"
    path.write_bytes(plan)
    used = gpu if gpu is not None else FakeGpu()
    return TensorRtRunner(fake_tensorrt(used), path, used)


def test_fake_has_only_names_that_are_checked_against_the_real_bindings() -> None:
    classes = (
        fakes.ILogger,
        fakes.IProfiler,
        fakes.IOutputAllocator,
        fakes.Runtime,
        fakes.ICudaEngine,
        fakes.IExecutionContext,
        fakes.EngineInspector,
    )
    names = [f"{kind.__name__}.{name}" for kind in classes for name in vars(kind) if not name.startswith("_")]
    assert sorted(set(names) - set(USED_API)) == []


def test_a_plan_that_is_missing_is_a_build_error(tmp_path: Path) -> None:
    gpu = FakeGpu()
    with pytest.raises(BuildError, match=r"engine\.plan: the plan cannot be read: No such file"):
        TensorRtRunner(fake_tensorrt(gpu), tmp_path / "engine.plan", gpu)


def test_outputs_come_back_for_every_batch_size_in_the_profile(tmp_path: Path) -> None:
    engine = runner(tmp_path)
    for rows in (2, 4, 1, 3):
        (doubled,) = engine.run(batch(rows))
        np.testing.assert_array_equal(doubled, batch(rows)["x"] * 2)


def test_tensors_are_told_as_the_engine_has_them(tmp_path: Path) -> None:
    found = runner(tmp_path).tensors()
    assert found.inputs == (EngineTensor("x", "float32", (None, 3)), EngineTensor("sizes", "int64", (2,)))
    assert found.outputs == (EngineTensor("y", "float32", (None, 3)),)
    assert found.profiles == ({"x": ((1, 3), (2, 3), (4, 3))},)


def test_outputs_of_one_run_survive_the_next(tmp_path: Path) -> None:
    engine = runner(tmp_path)
    (first,) = engine.run(batch(2))
    engine.run({**batch(2), "x": np.zeros((2, 3), dtype=np.float32)})
    np.testing.assert_array_equal(first, batch(2)["x"] * 2)


def test_buffers_grow_with_the_batch_and_never_shrink(tmp_path: Path) -> None:
    gpu = FakeGpu()
    engine = runner(tmp_path, gpu=gpu)
    engine.run(batch(2))
    assert len(gpu.memory) == 2
    engine.run(batch(4))
    assert len(gpu.memory) == 4
    engine.run(batch(1))
    assert len(gpu.memory) == 4


def test_input_that_is_read_on_the_host_takes_no_memory_of_the_gpu(tmp_path: Path) -> None:
    gpu = FakeGpu()
    engine = runner(tmp_path, gpu=gpu)
    engine.prepare(batch(2))
    assert engine.inputs == ("x", "sizes")
    assert len(gpu.memory) == 2


def test_shape_outside_the_profile_is_refused_with_the_range(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"input 'x' has shape \(5, 3\), built for \(1, 3\) to \(4, 3\)"):
        runner(tmp_path).run(batch(5))


@pytest.mark.parametrize(("rows", "profile"), [(1, 0), (3, 0), (4, 0), (6, 1), (8, 1), (9, 2), (32, 2)])
def test_a_batch_runs_in_the_profile_that_takes_it_and_of_several_in_the_nearest(tmp_path: Path, rows: int, profile: int) -> None:
    engine = runner(tmp_path, b"double, profiles")
    for count in (20, rows):
        (doubled,) = engine.run(batch(count))
        np.testing.assert_array_equal(doubled, batch(count)["x"] * 2)
    assert engine.profile == profile


def test_a_batch_that_no_profile_takes_is_refused_with_all_ranges(tmp_path: Path) -> None:
    ranges = "'x' (1, 3) to (4, 3); 'x' (3, 3) to (8, 3); 'x' (8, 3) to (32, 3)"
    with pytest.raises(EngineError, match=re.escape(f"no profile takes the shapes 'x' (33, 3); built for {ranges}")):
        runner(tmp_path, b"double, profiles").run(batch(33))


def test_all_profiles_are_told_in_their_order(tmp_path: Path) -> None:
    assert runner(tmp_path, b"double, profiles").tensors().profiles == tuple({"x": sizes} for sizes in fakes.RANGES)


def test_layers_are_told_in_the_profile_that_takes_the_sizes_asked_for(tmp_path: Path) -> None:
    engine = runner(tmp_path, b"double, profiles")
    engine.layer_information({"x": (32, 3)})
    assert engine.profile == 2


@pytest.mark.parametrize(("budget", "set_to"), [(None, []), (4096, []), (1 << 20, []), (1024, [1024]), (0, [0])])
def test_weights_above_the_budget_are_streamed_and_that_is_said_before_there_is_a_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int | None, set_to: list[int]
) -> None:
    told: list[object] = []
    monkeypatch.setattr(
        fakes.ICudaEngine, "weight_streaming_budget_v2", property(lambda _: told[-1], lambda _, value: told.append(value)), raising=False
    )
    make = fakes.ICudaEngine.create_execution_context

    def context(engine: fakes.ICudaEngine) -> object:
        told.append("context")
        return make(engine)

    monkeypatch.setattr(fakes.ICudaEngine, "create_execution_context", context)
    (tmp_path / "engine.plan").write_bytes(b"double")
    gpu = FakeGpu()
    TensorRtRunner(fake_tensorrt(gpu), tmp_path / "engine.plan", gpu, weight_budget_bytes=budget)
    assert told == [4096, *set_to, "context"]  # 4096: the engine's own, when it was made


def test_a_budget_of_weights_that_tensorrt_does_not_take_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = property(lambda _: 4096, lambda _, value: None)
    monkeypatch.setattr(fakes.ICudaEngine, "weight_streaming_budget_v2", kept, raising=False)
    (tmp_path / "engine.plan").write_bytes(b"double")
    gpu = FakeGpu()
    with pytest.raises(EngineError, match="TensorRT streams weights with 4096 bytes, 1024 asked for"):
        TensorRtRunner(fake_tensorrt(gpu), tmp_path / "engine.plan", gpu, weight_budget_bytes=1024)


def test_wrong_type_and_wrong_inputs_are_refused(tmp_path: Path) -> None:
    engine = runner(tmp_path)
    with pytest.raises(EngineError, match="input 'x' is float64, expected float32"):
        engine.run({**batch(2), "x": np.zeros((2, 3))})
    with pytest.raises(EngineError, match=r"inputs are \['x'\], expected \['sizes', 'x'\]"):
        engine.run({"x": batch(2)["x"]})


def test_an_input_that_the_plan_does_not_have_is_left_out(tmp_path: Path) -> None:
    engine = runner(tmp_path)
    plain = engine.run(batch(2))
    for before, after in zip(plain, engine.run({**batch(2), "unread": np.zeros(2, np.float32)}), strict=True):
        np.testing.assert_array_equal(before, after)


def test_layers_are_told_at_the_usual_sizes_before_anything_was_fed_and_then_at_those_that_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []

    def information(inspector: fakes.EngineInspector, form: str) -> str:
        assert inspector.execution_context is not None
        seen.append(inspector.execution_context.get_tensor_shape("y"))
        return "{}"

    monkeypatch.setattr(fakes.EngineInspector, "get_engine_information", information)
    engine = runner(tmp_path)
    engine.layer_information()
    engine.run(batch(4))
    engine.layer_information()
    assert seen == [(2, 3), (4, 3)]


def test_output_whose_size_depends_on_the_data_comes_back_as_long_as_it_is(tmp_path: Path) -> None:
    gpu = FakeGpu()
    engine = runner(tmp_path, b"double, some", gpu)
    for rows in (4, 1, 3):  # the first begins with 0
        (found,) = engine.run(batch(rows))
        np.testing.assert_array_equal(found, batch(rows)["x"][1:] * 2)
    assert gpu.notes == [f"free {4096 * 2}"]  # room for a row, as TensorRT said; then for three
    engine.close()
    assert gpu.notes[1:] == ["free 4096", f"free {4096 * 3}"]


def test_run_fails_where_an_output_of_unknown_size_gets_no_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gpu = FakeGpu()
    engine = runner(tmp_path, b"double, some", gpu)
    engine.prepare(batch(4))
    gpu.room = 0
    with pytest.raises(EngineError, match="TensorRT refused to run"):
        engine.run(batch(4))
    assert "output 'y': NVIDIA Fake 1: no" in caplog.text


def test_engine_with_such_an_output_is_timed_and_its_copies_too(tmp_path: Path) -> None:
    gpu = FakeGpu(graphs=False)
    engine = runner(tmp_path, b"double, some", gpu)
    found = time_engines({"a": engine}, batch(4), gpu, None, seconds=0.0, lock_folder=tmp_path)
    assert found.timings["a"].timing.median_ms == pytest.approx(1.0)
    assert found.transfers["a"].to_host_ms == pytest.approx(0.2)


def test_plan_that_does_not_load_is_refused_in_the_librarys_words(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"engine.plan: TensorRT 11\.4\.0 cannot load it on NVIDIA Fake 1: Serialization assertion failed"):
        runner(tmp_path, b"a plan of another version")


def test_library_that_does_not_start_is_an_engine_error_about_the_driver(tmp_path: Path) -> None:
    def nothing(log: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")  # what the bindings of 11.4 say

    gpu = FakeGpu()
    trt = fake_tensorrt(gpu)
    trt.__dict__["Runtime"] = nothing
    with pytest.raises(EngineError, match=r"TensorRT 11\.4\.0 did not start"):
        TensorRtRunner(trt, tmp_path / "engine.plan", gpu)


def test_engine_too_large_for_the_gpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no room on NVIDIA Fake 1"):
        runner(tmp_path, b"double, huge")


def test_closed_engine_frees_its_memory_and_runs_no_more(tmp_path: Path) -> None:
    gpu = FakeGpu()
    engine = runner(tmp_path, gpu=gpu)
    engine.run(batch(2))
    engine.close()
    engine.close()
    assert len(gpu.notes) == 2
    assert gpu.open_streams == 0
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.run(batch(2))


def test_layers_are_timed_by_name_and_the_profiler_is_taken_off_again(tmp_path: Path) -> None:
    engine = runner(tmp_path)
    assert engine.layer_times(batch(2), runs=3) == {"kernel1": [0.75] * 3, "move": [0.25] * 3}
    assert [kernel.nodes for kernel in engine.kernels()] == [("mul", "relu"), ()]
