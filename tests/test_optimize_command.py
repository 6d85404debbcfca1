"""The command line from outside: real child processes, a real layer precision, exit statuses, and what is left in the folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from service.__main__ import main
from tests.driver import plain_outputs
from tests.model_text import Array, cnn, model_from_text, samples_for
from tests.unusable_models import no_layer

pytestmark = pytest.mark.usefixtures("stages_of_one_parent")
WIDTH = 512


def wide_network() -> onnx.ModelProto:
    """Big enough for int8 to be faster by far where 64 samples go through at once."""
    return model_from_text(
        f"""g (float[N,{WIDTH}] x) => (float[N,10] logits) {{
            h1 = Gemm(x, w1, b1)
            a1 = Relu(h1)
            h2 = Gemm(a1, w2, b2)
            a2 = Relu(h2)
            logits = Gemm(a2, w3, b3)
        }}""",
        {"w1": (WIDTH, WIDTH), "b1": (WIDTH,), "w2": (WIDTH, WIDTH), "b2": (WIDTH,), "w3": (WIDTH, 10), "b3": (10,)},
    )


def optimize(
    folder: Path, model: bytes, calibration: Mapping[str, Array], config: object, validation: Mapping[str, Array] | None = None
) -> int:
    """Write the files, run the command and return its exit status; the output folder is ``folder / "out"``."""
    (folder / "model.onnx").write_bytes(model)
    np.savez(folder / "calibration.npz", **calibration)  # type: ignore[arg-type]  # numpy's stub takes the names for its own options
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    arguments = ["optimize", str(folder / "model.onnx"), "--calibration", str(folder / "calibration.npz")]
    if validation is not None:
        np.savez(folder / "validation.npz", **validation)  # type: ignore[arg-type]  # as above
        arguments += ["--validation", str(folder / "validation.npz")]
    return main([*arguments, "--config", str(folder / "config.json"), "--output", str(folder / "out")])


def test_a_network_that_int8_speeds_up_becomes_a_faster_engine(tmp_path: Path) -> None:
    model = wide_network().SerializeToString()
    calibration, validation = samples_for(wide_network(), 64, seed=1), samples_for(wide_network(), 200, seed=2)
    config = {"batch_size": 64, "accuracy": {"min_relative": 0.9}}
    assert optimize(tmp_path, model, calibration, config, validation) == 0

    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["outcome"] == "improved"
    assert result["speedup"] > 1.0
    assert result["chosen"]["latency_ms"]["median"] < result["baseline"]["latency_ms"]["median"]
    engine = tmp_path / "out" / "engine.onnx"
    assert result["engine"]["sha256"] == hashlib.sha256(engine.read_bytes()).hexdigest()
    assert result["engine"]["size_bytes"] == engine.stat().st_size < len(model) / 2
    outputs = [plain_outputs(source, validation, 64)[0].argmax(axis=1) for source in (engine, model)]
    used = result["verdict"]["n"]
    agreement = outputs[0] == outputs[1]
    assert used in (100, 200)
    if used == 200:
        assert result["chosen"]["accuracy"] == pytest.approx(float(agreement.mean()))
    assert result["environment"]["onnxruntime"] == onnxruntime.__version__
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "engine.onnx",
        "model.explicit.onnx",
        "triton.zip",
        "report.json",
        "report.html",
        "assignment.json",
        "result.json",
        "log.txt",
        "front",
    }
    (offer,) = [one for one in result["offers"]["engines"] if one["file"]["name"] == "engine.onnx"]  # what ships is an offer too
    assert json.loads((tmp_path / "out" / offer["assignment"]).read_text()) == json.loads(
        (tmp_path / "out" / "assignment.json").read_text()
    )
    assert (tmp_path / "model.onnx").read_bytes() == model


@pytest.mark.long
def test_a_metric_of_ones_own_runs_in_the_child_and_is_refused_if_it_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.onnx").write_bytes(cnn().SerializeToString())
    np.savez(tmp_path / "c.npz", **samples_for(cnn(), 24))  # type: ignore[arg-type]  # as in optimize
    text = """<ir_version: 8, opset_import: ["": 17]> metric (float[N,3] logits, float[N,3] reference_logits) => (float[N] score) {
        d = Sub(logits, reference_logits) a = Abs(d) m = ReduceMax<axes=[1], keepdims=0>(a) score = Tanh(m) }"""
    onnx.save_model(onnx.parser.parse_model(text), tmp_path / "mine.onnx")
    files = ["--calibration", "c.npz", "--metric-model", "mine.onnx", "--output", "out"]
    filled = [item if item.startswith("--") else str(tmp_path / item) for item in files]
    assert main(["optimize", str(tmp_path / "net.onnx"), *filled]) == 2
    error, fix = capsys.readouterr().err.splitlines()[-2:]
    assert error.startswith("error: metric model: it scores the float model 0 on every validation sample")
    assert fix == "fix: Return a score where more is better, such as 1 - error."
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("model", "samples", "config", "words"),
    [
        (b"no model", {}, {}, "model file 'model.onnx': is not an ONNX model"),
        (no_layer().SerializeToString(), {}, {}, "no quantizable layer"),
        (None, {"input": np.full((9, 1, 8, 8), np.nan, np.float32)}, {}, "array 'input' holds NaN in 9 of 9 samples"),
        (None, {}, {"accuracy": {"confidence": 0.99}}, "accuracy.confidence: 0.99 cannot be reached"),
        (None, {}, {"acuracy": {}}, "config: found the unknown key 'acuracy'"),
        (None, {}, {"accuracy": {"min_relative": 1.5}}, "accuracy.min_relative: found 1.5"),
        (None, {}, {"target": "tensorflow"}, "target: 'tensorflow' is unknown here"),
        (None, {}, {"precisions": ["int4"]}, "precisions[0]: found int4"),
        (None, {}, "{", "it is not JSON"),
    ],
    ids=["no model", "no layer", "samples", "confidence", "unknown key", "budget", "target", "precisions", "no JSON"],
)
def test_bad_input_ends_with_status_2_and_leaves_nothing(
    model: bytes | None,
    samples: Mapping[str, Array],
    config: object,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = optimize(tmp_path, cnn().SerializeToString() if model is None else model, samples or samples_for(cnn(), 9), config)
    errors = capsys.readouterr().err.splitlines()
    assert status == 2
    assert [line.partition(":")[0] for line in errors if line.startswith(("error:", "fix:"))] == ["error", "fix"]
    assert words in next(line for line in errors if line.startswith("error:"))
    assert not (tmp_path / "out").exists()
    assert "Traceback" not in "\n".join(errors)
