from __future__ import annotations

from pathlib import Path

import pytest

from calibration.errors import InvalidModelError
from calibration.number_formats.precision import Precision
from calibration.onnx_model.model_io import save_model
from engine_builder.backends.registry import BACKENDS
from engine_builder.engines.preflight import Preflight, job_seconds, preflight
from tests.model_text import model_from_text

CPU = {"onnxruntime-cpu": BACKENDS["onnxruntime-cpu"]}


def saved(folder: Path, text: str, **weights: tuple[int, ...]) -> Path:
    save_model(model_from_text(text, weights), folder / "net.onnx")
    return folder / "net.onnx"


def test_layers_are_counted_by_operator_and_by_what_a_target_has_for_them(tmp_path: Path) -> None:
    path = saved(
        tmp_path,
        """g (float[N,8] x) => (float[N,4] y) {
            h = Gemm(x, w1)
            a = Relu(h)
            y = MatMul(a, w2)
        }""",
        w1=(8, 8),
        w2=(8, 4),
    )
    found = preflight(path, tmp_path, targets=CPU)
    assert found.layers == {"Gemm": 1, "MatMul": 1}
    assert [(spec.name, spec.shape) for spec in found.inputs] == [("x", ("N", 8))]
    assert [(spec.name, spec.shape) for spec in found.outputs] == [("y", ("N", 4))]
    assert found.float_type is Precision.FP32
    target = found.targets[0]
    assert (target.target, target.why_not) == ("onnxruntime-cpu", None)
    assert set(target.layers) == {"int8", "int8_dynamic", "int8_weights", "int4_weights"}
    assert target.layers[Precision.INT8] == 2
    assert found.call_seconds is not None
    assert found.call_seconds > 0


def test_a_model_that_does_not_run_on_ones_is_told_all_but_its_time(tmp_path: Path) -> None:
    path = saved(
        tmp_path,
        """g (float[N,8] x, int64[K] picked) => (float[M,8] y) {
            h = Gemm(x, w1)
            y = Gather(h, picked)
        }""",
        w1=(8, 8),
    )
    found = preflight(path, tmp_path, targets=CPU)  # there is one row, and ones ask for the second
    assert found.call_seconds is None
    assert found.layers == {"Gemm": 1}
    assert job_seconds(found, 100) is None


def test_an_input_too_large_to_make_up_leaves_the_rest_to_be_told(tmp_path: Path) -> None:
    path = saved(tmp_path, f"g (float[N,{2**40},8] x) => (float[N,{2**40},4] y) {{ y = MatMul(x, w1) }}", w1=(8, 4))
    found = preflight(path, tmp_path, targets=CPU)
    assert found.call_seconds is None
    assert found.layers == {"MatMul": 1}


def test_a_call_without_an_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine_builder.engines.preflight.CALL_SECONDS", 0.2)
    path = saved(
        tmp_path,
        """g (float[N,8] x) => (float[N,4] y) {
            on = Constant<value = bool {1}>()
            z = Loop<body = b (int64 i, bool on_in, float[N,8] s) => (bool on_out, float[N,8] t) {
                on_out = Identity(on_in)
                t = Relu(s)
            }>("", on, x)
            y = MatMul(z, w1)
        }""",
        w1=(8, 4),
    )
    found = preflight(path, tmp_path, targets=CPU)
    assert found.call_seconds is None
    assert found.layers == {"MatMul": 1}


def test_a_target_that_is_not_here_says_why(tmp_path: Path) -> None:
    path = saved(tmp_path, "g (float[N,8] x) => (float[N,8] y) { y = Gemm(x, w1) }", w1=(8, 8))
    why = {target.target: target.why_not for target in preflight(path, tmp_path).targets}
    assert set(why) == set(BACKENDS)
    assert why["onnxruntime-cpu"] is None


def test_a_model_without_layers_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, "g (float[N,8] x) => (float[N,8] y) { y = Relu(x) }")
    with pytest.raises(InvalidModelError):
        preflight(path, tmp_path, targets=CPU)


def test_estimate_grows_with_samples_layers_and_calls() -> None:
    def estimate(samples: int, layers: int, call: float) -> tuple[float, float]:
        found = job_seconds(Preflight(17, Precision.FP32, (), (), {"Conv": layers}, (), call, ()), samples)
        assert found is not None
        return found

    low, high = estimate(1000, 30, 0.001)
    assert low == 10 + 3 * (2 + 1.0)
    assert high == 60 + 10 * (6 + 1.0) + 64 * 30 * 7.5 * 0.001
    for more in (estimate(2000, 30, 0.001), estimate(1000, 60, 0.001), estimate(1000, 30, 0.002)):
        assert more[0] >= low
        assert more[1] > high
