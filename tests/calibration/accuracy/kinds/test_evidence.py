"""What the graph says of an output."""

from __future__ import annotations

import numpy as np
import onnx

from calibration.accuracy.kinds.evidence import endings
from tests.model_text import model_from_text


def test_a_topk_before_an_output_says_how_many_rows_it_chooses() -> None:
    model = model_from_text(
        """g (float[N,9] x) => (float[N,4] y, float[N,4] v, float[N,9] z) {
            v, i = TopK<axis=1>(x, k)
            g = GatherElements<axis=1>(x, i)
            y = MatMul(g, w)
            z = Relu(x)
        }""",
        {"w": (4, 4)},
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([4]), "k"))
    found = endings(model)
    assert {name: end.chosen for name, end in found.items()} == {"y": (4,), "v": (4,), "z": ()}
    assert not found["y"].selects
