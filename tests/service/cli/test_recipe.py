from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from calibration.onnx_model.model_io import save_model
from engine_builder.records.assignment import PrecisionAssignment
from service.__main__ import main
from tests.model_text import model_from_text

Run = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    model = model_from_text(
        """g (float[N,8] x) => (float[N,4] y) {
            h = Gemm(x, w1)
            a = Relu(h)
            z = Gemm(a, w2)
            y = Softmax(z)
        }""",
        {"w1": (8, 8), "w2": (8, 4)},
    )
    for node, name in zip(model.graph.node, ("first", "relu", "second", "softmax"), strict=True):
        node.name = name
    save_model(model, tmp_path / "net.onnx")

    def call(*arguments: str | Path) -> tuple[int, list[str], list[str]]:
        status = main(["recipe", str(tmp_path / "net.onnx"), *map(str, arguments), "--output", str(tmp_path / "assignment.json")])
        printed = capsys.readouterr()
        return status, printed.out.splitlines(), printed.err.splitlines()

    return call


def cache(folder: Path, **scales: float) -> Path:
    lines = [f"{name}: {struct.pack('!f', scale).hex()}" for name, scale in scales.items()]
    (folder / "calibration.cache").write_text("\n".join(["TRT-8601-EntropyCalibration2", *lines, ""]))
    return folder / "calibration.cache"


def written(folder: Path, name: str = "assignment.json") -> object:
    return json.loads((folder / name).read_text())


def test_a_spec_becomes_an_assignment_like_that_of_a_report(run: Run, tmp_path: Path) -> None:
    status, lines, _ = run("--layer-precisions", "first:int8,softmax:fp32")
    assert status == 0
    assert written(tmp_path) == {"first": "int8", "second": "fp16"}
    assert PrecisionAssignment.from_json(written(tmp_path)).as_json() == written(tmp_path)
    assert lines == ["passed over: softmax is no layer with a precision of its own", f"{tmp_path / 'assignment.json'}  1 fp16, 1 int8"]


def test_a_cache_becomes_an_assignment_and_ranges(run: Run, tmp_path: Path) -> None:
    status, lines, _ = run("--calibration-cache", cache(tmp_path, x=0.5, y=0.25), "--default", "fp32")
    assert status == 0
    assert written(tmp_path) == {"first": "int8", "second": "fp32"}
    assert written(tmp_path, "assignment.ranges.json") == {"x": [-63.5, 63.5]}
    assert lines[-1].endswith("ranges of 1 of the 2 tensors in the calibration cache")


def test_a_layer_asked_for_in_int8_without_a_range_is_named(run: Run, tmp_path: Path) -> None:
    status, lines, _ = run("--layer-precisions", "*:int8", "--calibration-cache", cache(tmp_path, x=0.5))
    assert status == 0
    assert written(tmp_path) == {"first": "int8", "second": "fp16"}
    assert lines[0] == "second: fp16 instead of int8, since the calibration cache has no range for an input of it"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "error: recipe: found nothing to read"),
        (("--layer-precisions", "third:int8"), "error: layer precisions: no layer or node is called 'third'"),
        (("--calibration-cache", "no-such-file"), "error: calibration cache no-such-file: No such file or directory"),
        (("--calibration-cache", __file__), "error: calibration cache: found 'from __future__ import annotations' as the first line"),
    ],
)
def test_what_cannot_be_used_ends_with_status_2_and_a_fix(run: Run, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    status, _, errors = run(*arguments)
    assert status == 2
    assert errors[0].startswith(words)
    assert errors[1].startswith("fix: ")
    assert not (tmp_path / "assignment.json").exists()


def test_a_binary_file_is_no_calibration_cache(run: Run, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    status, _, errors = run("--calibration-cache", tmp_path / "binary")
    assert status == 2
    assert "it is not text" in errors[0]


def test_an_output_that_cannot_be_written_is_said(run: Run, tmp_path: Path) -> None:
    (tmp_path / "assignment.json").mkdir()
    status, _, errors = run("--layer-precisions", "*:int8")
    assert status == 2
    assert "assignment.json: Is a directory" in errors[0]


def test_an_assignment_is_written_for_other_tools(run: Run, tmp_path: Path) -> None:
    (tmp_path / "given.json").write_text('{"first": "int8", "second": "fp16"}')
    exports = ("--modelopt", tmp_path / "modelopt.json", "--polygraphy", tmp_path / "script.py")
    status, out, _ = run("--assignment", tmp_path / "given.json", *exports)
    assert status == 0
    assert written(tmp_path) == {"first": "int8", "second": "fp16"}
    assert written(tmp_path, "modelopt.json") == {"nodes_to_exclude": ["second$"], "quantize_mode": "int8"}
    assert "'first': 'int8'," in (tmp_path / "script.py").read_text()
    assert len(out) == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"first": "int8"}', "no precision for second"),
        ('{"frist": "int8", "*": "fp16"}', "no layer 'frist'"),
        ('{"*": "int8_dynamic"}', "which TensorRT does not have"),
        ('{"*": "int9"}', "int9"),
    ],
)
def test_an_assignment_that_cannot_be_exported_says_why(content: str, words: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "given.json").write_text(content)
    status, _, err = run("--assignment", tmp_path / "given.json", "--polygraphy", tmp_path / "script.py")
    assert status == 2
    assert words in err[0]


def test_an_assignment_beside_settings_of_tensorrt_10_is_refused(run: Run, tmp_path: Path) -> None:
    status, _, err = run("--assignment", tmp_path / "given.json", "--layer-precisions", "*:int8")
    assert status == 2
    assert "expected one of them" in err[0]


def test_layers_without_a_name_are_passed_over_for_other_tools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = model_from_text("g (float[N,8] x) => (float[N,8] y) { y = Gemm(x, w) }", {"w": (8, 8)})
    save_model(model, tmp_path / "net.onnx")
    options = ["--layer-precisions", "*:int8", "--polygraphy", str(tmp_path / "script.py")]
    assert main(["recipe", str(tmp_path / "net.onnx"), *options]) == 0
    assert "passed over: 1 layers whose nodes have no name" in capsys.readouterr().out


def test_a_recipe_that_writes_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", str(tmp_path / "net.onnx"), "--layer-precisions", "*:int8"]) == 2
    assert "nothing to write" in capsys.readouterr().err
