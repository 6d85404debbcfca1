from __future__ import annotations

from pathlib import Path

import pytest

from calibration.number_formats.precision import Precision
from calibration.onnx_model.model_io import TensorSpec, save_model
from engine_builder.engines.preflight import Preflight, TargetPreflight
from service.__main__ import main
from service.cli.inspecting.preflight_lines import preflight_lines
from tests.model_text import model_from_text

FOUND = Preflight(
    opset=17,
    float_type=Precision.FP32,
    inputs=(TensorSpec("image", "float32", ("N", 3, None)), TensorSpec("free", "int64", (), has_rank=False)),
    outputs=(TensorSpec("y", "float32", ("N", 10)),),
    layers={"Conv": 20, "Gemm": 1},
    targets=(
        TargetPreflight("onnxruntime-cpu", {Precision.INT8: 21, Precision.INT8_DYNAMIC: 0}),
        TargetPreflight("tensorrt", {}, "no package"),
        TargetPreflight("other", {Precision.INT8: 0}),
    ),
    call_seconds=0.002,
    notes=("a note",),
)


def test_lines_say_what_a_user_has_to_know_before_a_job() -> None:
    lines = list(preflight_lines(FOUND, 1_500_000, 1000))
    assert lines[:3] == [
        "model     1.50 MB, opset 17, weights in fp32",
        "inputs    image: float32 (N, 3, ?)",
        "          free: int64 of any shape",
    ]
    assert "layers    21 that can take a lower precision: 20 Conv, 1 Gemm" in lines
    assert "targets   onnxruntime-cpu: int8 for 21 of 21 layers" in lines
    assert "          tensorrt: not here: no package" in lines
    assert "          other: no layer can take a lower precision" in lines
    assert "data      array 'image': float32, shape (samples, 3, any)" in lines
    assert "          array 'free': int64, shape (samples, ...)" in lines
    assert any(
        line.startswith("time      one call 2.00 ms here; a job for onnxruntime-cpu with 1000 samples about 22 s to 3 min")
        for line in lines
    )
    assert lines[-1] == "notes     a note"


def test_time_that_is_not_known_is_not_made_up() -> None:
    unknown = Preflight(**{name: getattr(FOUND, name) for name in FOUND.__slots__} | {"call_seconds": None})
    assert "time      not known: the model does not run on made-up input, or takes too long" in list(preflight_lines(unknown, 1, 1000))


def test_command_tells_of_a_model_and_exits_with_2_where_it_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = model_from_text("g (float[N,8] x) => (float[N,8] y) { y = Gemm(x, w1) }", {"w1": (8, 8)})
    save_model(model, tmp_path / "net.onnx")
    assert main(["inspect", str(tmp_path / "net.onnx"), "--samples", "50"]) == 0
    out = capsys.readouterr().out
    assert "array 'x': float32, shape (samples, 8)" in out
    assert "with 50 samples" in out
    (tmp_path / "net.onnx").write_bytes(b"no model")
    assert main(["inspect", str(tmp_path / "net.onnx")]) == 2
    assert capsys.readouterr().err.startswith("error: model file")
