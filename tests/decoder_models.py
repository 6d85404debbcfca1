"""A tiny decoder that takes one token a call with the keys and values of all tokens before it, and texts for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from tests.model_text import Array, model_from_text
from tests.state_models import session

VOCABULARY, HEADS, SIZE, WIDTH, MOST = 20, 2, 8, 16, 64
CACHES = {"present.0.key": "past_key_values.0.key", "present.0.value": "past_key_values.0.value"}


def decoder(*, has_mask: bool = True, has_positions: bool = True) -> onnx.ModelProto:
    """Return one block of a transformer, named and shaped as exported decoders are."""
    cache = f"float[batch,{HEADS},past_sequence_length,{SIZE}]"
    grown = f"float[batch,{HEADS},total_sequence_length,{SIZE}]"
    mask = ", int64[batch,total_sequence_length] attention_mask" if has_mask else ""
    positions = ", int64[batch,sequence_length] position_ids" if has_positions else ""
    model = model_from_text(
        f"""decoder (int64[batch,sequence_length] input_ids{mask}{positions}, {cache} past_key, {cache} past_value)
 => (float[batch,sequence_length,{VOCABULARY}] logits, {grown} present_key, {grown} present_value)
{{
  tokens = Gather (embedding, input_ids)
  {"places = Gather (position_table, position_ids) h = Add (tokens, places)" if has_positions else "h = Identity (tokens)"}
  q0 = MatMul (h, wq)
  k0 = MatMul (h, wk)
  v0 = MatMul (h, wv)
  q1 = Reshape (q0, split)
  k1 = Reshape (k0, split)
  v1 = Reshape (v0, split)
  q = Transpose <perm = [0, 2, 1, 3]> (q1)
  k = Transpose <perm = [0, 2, 1, 3]> (k1)
  v = Transpose <perm = [0, 2, 1, 3]> (v1)
  present_key = Concat <axis = 2> (past_key, k)
  present_value = Concat <axis = 2> (past_value, v)
  turned = Transpose <perm = [0, 1, 3, 2]> (present_key)
  raw = MatMul (q, turned)
  {"as_float = Cast <to = 1> (attention_mask) kept = Unsqueeze (as_float, middle) away = Sub (kept, one)" if has_mask else ""}
  {"large = Mul (away, thousand) scores = Add (raw, large)" if has_mask else "scores = Identity (raw)"}
  shares = Softmax <axis = -1> (scores)
  mixed = MatMul (shares, present_value)
  back = Transpose <perm = [0, 2, 1, 3]> (mixed)
  joined = Reshape (back, together)
  attended = MatMul (joined, wo)
  first = Add (h, attended)
  wide = MatMul (first, w1)
  active = Relu (wide)
  narrow = MatMul (active, w2)
  second = Add (first, narrow)
  logits = MatMul (second, w3)
}}""",
        {
            "embedding": (VOCABULARY, WIDTH),
            "position_table": (MOST, WIDTH),
            **dict.fromkeys(("wq", "wk", "wv", "wo"), (WIDTH, WIDTH)),
            **{"w1": (WIDTH, 2 * WIDTH), "w2": (2 * WIDTH, WIDTH), "w3": (WIDTH, VOCABULARY)},
        },
    )
    constants: dict[str, list[int] | np.float32] = {"split": [0, 0, HEADS, SIZE], "together": [0, 0, WIDTH], "middle": [1, 2]}
    constants |= {"one": np.float32(1.0), "thousand": np.float32(1000.0)}
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in read)
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    for new, old in {**CACHES, **{taken: output for output, taken in CACHES.items()}}.items():
        short = f"{'present' if new.startswith('present') else 'past'}_{new.rsplit('.', 1)[1]}"
        assert old
        _rename(model.graph, short, new)
    return model


def texts(count: int, steps: int, seed: int = 0) -> Array:
    """Return texts of tokens that depend on the one before, (count, steps), int64."""
    rng = np.random.default_rng(seed)
    tokens = np.zeros((count, steps), dtype=np.int64)
    for step in range(1, steps):
        tokens[:, step] = (3 * tokens[:, step - 1] + rng.integers(0, 5, count)) % VOCABULARY
    return tokens


def logits_of(model: Path | bytes, text: Sequence[int]) -> Array:
    """Return the logits of each token of a text, (tokens, VOCABULARY), in plain onnxruntime with a cache that grows."""
    runner = session(model)
    names, wanted = [value.name for value in runner.get_outputs()], {value.name for value in runner.get_inputs()}
    held = {taken: np.zeros((1, HEADS, 0, SIZE), dtype=np.float32) for taken in CACHES.values()}
    found = []
    for step, token in enumerate(text):
        feeds: dict[str, Array] = {"input_ids": np.array([[token]], dtype=np.int64), **held}
        feeds["attention_mask"] = np.ones((1, step + 1), dtype=np.int64)
        feeds["position_ids"] = np.array([[step]], dtype=np.int64)
        outputs = runner.run(None, {name: array for name, array in feeds.items() if name in wanted})
        held = {taken: outputs[names.index(output)] for output, taken in CACHES.items()}
        found.append(outputs[0][0, 0])
    return np.stack(found)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
    for value in (*graph.input, *graph.output):
        value.name = new if value.name == old else value.name
