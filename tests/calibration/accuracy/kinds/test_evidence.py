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


def test_rows_that_a_suppression_in_the_graph_chooses_are_in_its_order() -> None:
    model = model_from_text(
        """g (float[1,9,4] x, float[1,2,9] p) => (float[1,5,4] boxes, float[1,M,2] scores, float[1,2,9] all) {
            s = NonMaxSuppression(x, p, most)
            i = Gather<axis=1>(s, column)
            found = Gather<axis=1>(x, i)
            padded = Concat<axis=1>(found, nothing)
            boxes = Slice(padded, zero, five, one)
            t = Transpose<perm=[0,2,1]>(p)
            scores = Gather<axis=1>(t, i)
            all = Relu(p)
        }"""
    )
    for name, array in (
        ("most", np.array([5])),
        ("column", np.array(2)),
        ("nothing", np.zeros((1, 5, 4), np.float32)),
        ("zero", np.array([0])),
        ("five", np.array([5])),
        ("one", np.array([1])),
    ):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    assert {name: end.selects for name, end in endings(model).items()} == {"boxes": True, "scores": True, "all": False}
