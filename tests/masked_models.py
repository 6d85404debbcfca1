"""A small transformer whose padding is infinite or NaN inside, in the ways that real exports have it, and finite where it counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from tests.model_text import model_from_text

Array = NDArray[np.generic]
TOKENS, WIDTH, CLASSES = 6, 32, 5
LOWEST = float(np.finfo(np.float32).min)

# How the scores `s` (N,T,T) and the input `m` become masked scores `sm`: the type of `m`, and the nodes.
MASKS: Mapping[str, tuple[str, str]] = {
    "bool, Where -inf": ("bool[N,6]", "k = Unsqueeze(m, one_axis) sm = Where(k, s, ninf)"),
    "bool, Where lowest": ("bool[N,6]", "k = Unsqueeze(m, one_axis) sm = Where(k, s, lowest)"),
    "bool, both sides": (
        "bool[N,6]",
        "k = Unsqueeze(m, one_axis) q_ = Unsqueeze(m, two_axis) both = And(q_, k) sm = Where(both, s, ninf)",
    ),
    "int, times lowest": (
        "int64[N,6]",
        "f = Cast<to=1>(m) u = Unsqueeze(f, one_axis) i = Sub(one, u) pad = Mul(i, lowest) sm = Add(s, pad)",
    ),
    "int, two sums": (
        "int64[N,6]",
        "f = Cast<to=1>(m) u = Unsqueeze(f, one_axis) i = Sub(one, u) pad = Mul(i, lowest) big = Expand(pad, square) "
        "z = Mul(u, zeros) caus = Add(z, causal) mask = Add(big, caus) sum = Add(s, mask) sm = Max(sum, lowest)",
    ),
    "int, log": ("int64[N,6]", "f = Cast<to=1>(m) u = Unsqueeze(f, one_axis) logs = Log(u) sm = Add(s, logs)"),
    "int, -1e9": ("int64[N,6]", "f = Cast<to=1>(m) u = Unsqueeze(f, one_axis) i = Sub(one, u) pad = Mul(i, billion) sm = Add(s, pad)"),
    "additive": ("float[N,6]", "u = Unsqueeze(m, one_axis) sm = Add(s, u)"),
    "additive, full": ("float[N,6]", "u = Unsqueeze(m, one_axis) full = Expand(u, square) sum = Add(s, full) sm = Max(sum, lowest)"),
}
# How the sum `r` (N,T,W) becomes the output: its shape, and the nodes. `valid` (N,T) is bool.
ENDS: Mapping[str, tuple[str, str]] = {
    "tokens": ("float[N,6,5]", "v3 = Unsqueeze(valid, two_axis) t = Where(v3, r, nought) y = MatMul(t, wh)"),
    "masked logits": ("float[N,6]", "one_row = MatMul(r, wo1) row = Squeeze(one_row, two_axis) y = Where(valid, row, ninf)"),
    "lowest logits": ("float[N,6]", "one_row = MatMul(r, wo1) row = Squeeze(one_row, two_axis) y = Where(valid, row, lowest)"),
    "logits of -1e9": ("float[N,6]", "one_row = MatMul(r, wo1) row = Squeeze(one_row, two_axis) y = Where(valid, row, billion)"),
    "mean of classes": (  # a class without a token is 0/0, dropped behind it
        "float[N,5]",
        "v3 = Unsqueeze(valid, two_axis) t = Where(v3, r, nought) h = MatMul(t, wh) act = Relu(h) "
        "top = ReduceMax<axes=[1], keepdims=0>(act) "
        "low = Mul(top, nothing) d = Div(low, low) nan = IsNaN(d) y0 = Where(nan, nought, d) y = Add(y0, top)",
    ),
    "log of probabilities": (
        "float[N,6,5]",
        "v3 = Unsqueeze(valid, two_axis) t = Where(v3, r, nought) h = MatMul(t, wh) act = Relu(h) "
        "l = Log(act) e = Exp(l) y = MatMul(e, wz)",
    ),
}


@dataclass(frozen=True)
class Masked:
    """A model and samples for it; the last samples have the most padding, and none has nothing else."""

    model: onnx.ModelProto
    samples: Mapping[str, Array]


def masked(mask: str, end: str, *, count: int = 40, hidden: float = -np.inf, seed: int = 0) -> Masked:
    """Return the transformer.

    Args:
        mask: A key of MASKS.
        end: A key of ENDS.
        count: Samples.
        hidden: What an additive mask holds where it hides a token.
        seed: Of the samples.
    """
    kind, masking = MASKS[mask]
    shape, ending = ENDS[end]
    is_valid = {"b": "valid = Identity(m)", "i": "valid = Cast<to=9>(m)", "f": "valid = GreaterOrEqual(m, nought)"}[kind[0]]
    model = model_from_text(
        f"""g (float[N,6,32] x, {kind} m) => ({shape} y) {{
            q = MatMul(x, wq) k0 = MatMul(x, wk) v = MatMul(x, wv) kt = Transpose<perm=[0,2,1]>(k0)
            s = MatMul(q, kt) {masking} p = Softmax<axis=-1>(sm) c = MatMul(p, v) o = MatMul(c, wo)
            {is_valid} vo = Unsqueeze(valid, two_axis) kept = Where(vo, o, nought) r = Add(kept, x) {ending} }}""",
        dict.fromkeys(("wq", "wk", "wv", "wo"), (WIDTH, WIDTH)) | {"wh": (WIDTH, CLASSES), "wz": (CLASSES, CLASSES), "wo1": (WIDTH, 1)},
    )
    numbers = {
        "ninf": -np.inf,
        "lowest": LOWEST,
        "one": 1.0,
        "nought": 0.0,
        "billion": -1e9,
        "causal": np.triu(np.full((1, TOKENS, TOKENS), LOWEST), 1),
        "zeros": np.zeros((1, TOKENS, TOKENS)),
        "nothing": np.array([0.0] + [1.0] * (CLASSES - 1)),
    }
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in numbers.items())
    axes = {"one_axis": [1], "two_axis": [2], "square": [1, TOKENS, TOKENS]}
    model.graph.initializer.extend(numpy_helper.from_array(np.array(value, np.int64), name) for name, value in axes.items())
    read = {name for node in model.graph.node for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in read]:
        model.graph.initializer.remove(tensor)
    rng = np.random.default_rng(seed)
    length = 1 + np.arange(count) % TOKENS
    valid = np.arange(TOKENS) < length[:, None]
    given: Array = {"b": valid, "i": valid.astype(np.int64), "f": np.where(valid, 0.0, hidden).astype(np.float32)}[kind[0]]
    return Masked(model, {"x": rng.normal(size=(count, TOKENS, WIDTH)).astype(np.float32), "m": given})
