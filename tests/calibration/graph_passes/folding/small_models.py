"""Small models with constants around layers, and what is left of their operators when those are folded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike

from calibration.graph_passes.normalize import prepare
from tests.model_text import model_from_text, one_batch, run

_WEIGHTS = {
    "w": (4, 4, 3, 3),
    "p": (4, 4, 1, 1),
    "w8": (4, 8, 3, 3),
    "m": (4, 4),
    "v": (4, 4),
    "b": (4,),
    "c": (4, 1, 1),
    "d": (1, 4, 1, 1),
}
_POSITIVE = {"f": (4,), "e": (8, 1, 1), "gamma": (4,), "variance": (4,)}


def constant_model(body: str, inputs: str, outputs: str, given: Mapping[str, ArrayLike] | None = None) -> onnx.ModelProto:
    """Return a model whose body may read constants by name, random ones and those given.

    ``w``, ``p``, ``w8``: filters, ``m``, ``v``: matrices, ``b``, ``mean``: a number a channel, ``c``, ``d``, ``e``, ``f``, ``gamma``,
    ``variance``: positive ones, ``two``, ``minus``, ``zero``: one number.
    """
    model = model_from_text(f"g ({inputs}) => ({outputs}) {{ {body} }}", _WEIGHTS | _POSITIVE | {"mean": (4,), "beta": (4,)})
    arrays: dict[str, Any] = {"two": [2.0], "minus": -1.0, "zero": 0.0, **(given or {})}
    for tensor in model.graph.initializer:
        if tensor.name in ("c", "d", *_POSITIVE):
            arrays.setdefault(tensor.name, np.abs(onnx.numpy_helper.to_array(tensor)) + 0.25)
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in arrays]
    kept += [onnx.numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in arrays.items()]
    read = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensor for tensor in kept if tensor.name in read)
    return model


def images(body: str, outputs: str = "float[A,B,C,D] y", **given: ArrayLike) -> onnx.ModelProto:
    """Return a model that reads ``x``, (batch, 4, 8, 8)."""
    return constant_model(body, "float[N,4,8,8] x", outputs, given)


def sequences(body: str, outputs: str = "float[A,B,C] y", **given: ArrayLike) -> onnx.ModelProto:
    """Return a model that reads ``x``, (batch, 4, 4)."""
    return constant_model(body, "float[N,4,4] x", outputs, given)


def rows(body: str, outputs: str = "float[A,B] y", **given: ArrayLike) -> onnx.ModelProto:
    """Return a model that reads ``x``, (batch, 4)."""
    return constant_model(body, "float[N,4] x", outputs, given)


def operators_after(model: onnx.ModelProto) -> list[str]:
    """Return the operators of the prepared model, after a look at what it computes."""
    feeds = one_batch(model)
    prepared = prepare(model).model
    for one, other in zip(run(model, feeds), run(prepared, feeds), strict=True):
        # float32 rounding, of sums that are near zero too
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5 * max(1.0, float(np.abs(one).max())))
    return [node.op_type for node in prepared.graph.node]
