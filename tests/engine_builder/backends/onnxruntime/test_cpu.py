"""Every backend keeps the same contract; ONNX Runtime's CPU provider is the first one."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from calibration.errors import InputError
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, Precision
from calibration.onnx_model.model_io import save_model
from calibration.process.memory import TRIM_BYTES
from engine_builder.backends.base import Backend
from engine_builder.backends.onnxruntime import cpu
from engine_builder.backends.onnxruntime.cpu import OrtCpuRunner
from engine_builder.backends.registry import BACKENDS, backend_for, targets, why_not
from engine_builder.errors import UnsupportedTargetError
from engine_builder.qdq.checks.simulation import simulated
from engine_builder.qdq.tensorrt_dialect import rewrite_tensorrt
from engine_builder.timing import Timing, TimingPlan
from tests.engine_builder.backends.contracts import FEEDS, MODEL, BackendContract
from tests.engine_builder.fake_quantized import run
from tests.engine_builder.qdq.networks import BLOCKS, network
from tests.traced_memory import peak_bytes


class TestOrtCpu(BackendContract):
    def backend(self) -> Backend:
        return backend_for("onnxruntime-cpu")

    def test_capabilities(self) -> None:
        capabilities = self.backend().capabilities
        assert (capabilities.baseline, capabilities.low_precisions, capabilities.scheme) == (
            Precision.FP32,
            (Precision.INT8, Precision.INT8_DYNAMIC, Precision.INT8_WEIGHTS, Precision.INT4_WEIGHTS),
            ONNXRUNTIME_CPU_SCHEME,
        )
        assert capabilities.latency_source == "measured"

    def test_engine_is_the_explicit_model_byte_for_byte(self, tmp_path: Path) -> None:
        explicit = self.explicit(tmp_path)
        engine = self.backend().build(explicit, tmp_path / "engine.onnx")
        assert engine.path.read_bytes() == explicit.read_bytes()

    def test_external_data_follows_the_engine(self, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.mkdir()
        model = onnx.parser.parse_model(MODEL)
        weight = model.graph.initializer[0]
        weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight), weight.name))
        save_model(model, source / "explicit.onnx", limit_bytes=0)
        assert (source / "explicit.onnx.data").exists()
        engine = self.backend().build(source / "explicit.onnx", tmp_path / "engine.onnx")
        for path in source.iterdir():
            path.unlink()
        total, _ = self.backend().open(engine.path, threads=1).run(FEEDS)
        np.testing.assert_allclose(np.asarray(total, np.float32), FEEDS["x"] * [1, 2, 3] + 1)

    def test_external_data_are_copied_without_being_read_into_memory(self, tmp_path: Path) -> None:
        size = 2 << 20
        model = onnx.parser.parse_model(
            f"""<ir_version: 8, opset_import: ["" : 17]> g (float[{size}] x) => (float[{size}] y) {{ y = Add(x, w) }}"""
        )
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(size, np.float32), "w"))
        save_model(model, tmp_path / "explicit.onnx", limit_bytes=0)
        assert peak_bytes(lambda: self.backend().build(tmp_path / "explicit.onnx", tmp_path / "engine.onnx")) < size
        assert (tmp_path / "engine.onnx.data").read_bytes() == (tmp_path / "explicit.onnx.data").read_bytes()

    def test_no_thread_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="threads"):
            self.backend().open(self.explicit(tmp_path), threads=0)


def test_targets_are_listed_with_their_precisions() -> None:
    listed = [target["target"] for target in targets()]
    assert listed == [target for target in BACKENDS if why_not(target) is None]
    assert "onnxruntime-cpu" in listed
    precisions = ["fp32", "int8", "int8_dynamic", "int8_weights", "int4_weights"]
    assert targets()[0] == {"target": "onnxruntime-cpu", "precisions": precisions, "latency_source": "measured", "gpus": []}


def test_unknown_target_names_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(UnsupportedTargetError, match="expected one of onnxruntime-cpu") as raised:
        backend_for("onnxruntime_cpu")
    assert raised.value.fix == "use 'onnxruntime-cpu'"
    assert isinstance(raised.value, InputError)


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
def test_as_written_the_tensorrt_dialect_computes_what_its_operators_say(precision: Precision, tmp_path: Path) -> None:
    found = network(BLOCKS)
    explicit = rewrite_tensorrt(found.model, found.layers, found.all_in(precision), found.ranges)
    save_model(explicit, tmp_path / "explicit.onnx")
    (expected,) = run(simulated(explicit), found.feeds, optimized=False).values()
    (got,) = OrtCpuRunner(tmp_path / "explicit.onnx", threads=1, as_written=True).run(found.feeds)
    np.testing.assert_allclose(
        np.asarray(got, np.float32), expected, rtol=1e-6
    )  # the runtime's own rewriting of Q/DQ moves it by 0.6% and more


def test_a_job_for_this_target_imports_no_other_targets_modules() -> None:
    code = (
        "import sys, engine_builder.stages.trial; from engine_builder.backends.registry import backend_for; "
        "backend_for('onnxruntime-cpu'); "
        "sys.exit(any(name.startswith('engine_builder.backends.nvidia.tensorrt') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("threads", "compared_by"), [((1, 1), time.thread_time), ((2, 2), None), ((1, 2), None)])
def test_engines_of_one_thread_are_compared_by_its_cpu_time(
    tmp_path: Path, threads: tuple[int, int], compared_by: Callable[[], float] | None
) -> None:
    backend, path = backend_for("onnxruntime-cpu"), tmp_path / "explicit.onnx"
    onnx.save_model(onnx.parser.parse_model(MODEL), path)
    asked: list[object] = []

    def timer(calls: Mapping[str, Callable[[], object]], **how: object) -> dict[str, Timing]:
        asked.append(how["compared_by"])
        return {}

    runners = {name: backend.open(path, threads=count) for name, count in zip(("baseline", "engine"), threads, strict=True)}
    backend.timings(runners, FEEDS, TimingPlan(1.0, 1, 2, timer))
    assert asked == [compared_by]


class _NotedRuns:
    """In the place of a session: notes for each run whether the runtime is asked to give memory back."""

    def __init__(self) -> None:
        self.gives_back: list[bool] = []

    def run(self, names: None, feeds: Mapping[str, np.ndarray], options: onnxruntime.RunOptions | None) -> list[np.ndarray]:
        entry = None if options is None else options.get_run_config_entry("memory.enable_memory_arena_shrinkage")
        self.gives_back.append(entry == "cpu:0")
        return [np.zeros(1)]


@pytest.mark.parametrize(
    ("size_bytes", "is_timed", "expected"),
    [
        (1024, True, [False, False]),
        (2 << 20, True, [False, True]),
        (16 << 20, True, [False, True]),
        (2 << 20, False, [False, True]),
        (16 << 20, False, [True, True]),
    ],
)
def test_activations_are_given_back_after_the_last_run_and_after_large_ones_that_are_not_timed(
    size_bytes: int, is_timed: bool, expected: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(onnx.parser.parse_model(MODEL), tmp_path / "engine.onnx")
    runner, noted = OrtCpuRunner(tmp_path / "engine.onnx", threads=1, is_timed=is_timed), _NotedRuns()
    monkeypatch.setattr(runner, "_session", noted)

    runner.run({"x": np.zeros(size_bytes, dtype=np.int8)})
    runner.run_giving_back({"x": np.zeros(size_bytes, dtype=np.int8)})

    assert noted.gives_back == expected


@pytest.mark.parametrize(("size_bytes", "expected"), [(0, 0), (TRIM_BYTES, 2)])
def test_what_a_large_engine_held_goes_back_to_the_system_once_it_is_closed(
    size_bytes: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.parser.parse_model(MODEL)
    model.doc_string = " " * size_bytes
    save_model(model, tmp_path / "engine.onnx")
    returns: list[bool] = []
    monkeypatch.setattr(cpu, "return_free_memory", lambda: returns.append(True))

    runner = OrtCpuRunner(tmp_path / "engine.onnx", threads=1)
    runner.close()
    runner.close()

    assert len(returns) == expected  # once it is open, and once it is closed
