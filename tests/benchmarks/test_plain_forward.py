from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from benchmarks.plain_forward import PlainForwards, plain_forwards


@pytest.fixture
def one_product(tmp_path: Path) -> Path:
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 256] x) => (float[n, 256] y) { t = Transpose(x) y = MatMul(x, MatMul(t, x)) }'
    )
    text = text.replace("MatMul(x, MatMul(t, x))", "MatMul(x, s)").replace("y =", "s = MatMul(t, x) y =")
    onnx.save_model(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_passes_are_timed_in_another_process_as_often_as_asked(one_product: Path) -> None:
    with plain_forwards(one_product) as forwards:
        for _ in range(2):
            forwards.time({"x": np.ones((64, 256), np.float32)})
        found = forwards.sample_seconds
    assert 0.0 < found < 1.0


def test_a_sample_is_the_mean_over_batches() -> None:
    class Told:
        """A connection whose other end takes 2 s for the first batch and 6 s for the second."""

        def __init__(self) -> None:
            self.seconds = [2.0, 6.0]

        def send(self, batch: object) -> None:
            assert batch is not None

        def recv(self) -> float:
            return self.seconds.pop(0)

    forwards = PlainForwards(Told())  # type: ignore[arg-type]  # all of a connection that is used
    forwards.time({"x": np.ones((2, 4))})
    forwards.time({"x": np.ones((2, 4))})
    assert forwards.sample_seconds == 2.0
