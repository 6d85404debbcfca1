"""Trains a small decoder on characters of Python's own documentation, with torch, and writes it as an ONNX file with caches.

Not part of the product or of its lock: run it in an environment of its own that has torch and onnx.

    python -m benchmarks.decoder.training OUTPUT_FOLDER [--steps 300]

writes ``decoder.onnx``, ``calibration.npz``, ``validation.npz`` (the next characters are its labels) and ``unseen.npz``. The network is
that of GPT-2 with 2 blocks (RMS normalization in the place of layer normalization, no biases), 128 wide, with 4 heads. The graph takes any
number of tokens a call, each of which sees those before it.
"""

from __future__ import annotations

import argparse
import pydoc_data.topics
from pathlib import Path

import numpy as np
import onnx
import torch  # type: ignore[import-not-found]  # in the environment of this script alone
from onnx import numpy_helper, parser

WIDTH, HEADS, BLOCKS, CONTEXT = 128, 4, 2, 128
TEXTS = {"calibration": 64, "validation": 200, "unseen": 200}
LENGTH = 128  # characters of a text


def main() -> None:
    """Train and write."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("output", type=Path)
    arguments.add_argument("--steps", type=int, default=300)
    chosen = arguments.parse_args()
    text = "\n".join(value for _, value in sorted(pydoc_data.topics.topics.items()))
    letters = sorted(set(text))
    tokens = np.array([letters.index(letter) for letter in text], dtype=np.int64)
    cut = int(0.8 * len(tokens))
    weights = trained(tokens[:cut], len(letters), chosen.steps)
    chosen.output.mkdir(parents=True, exist_ok=True)
    onnx.save(decoder(weights, len(letters)), chosen.output / "decoder.onnx")
    pieces = tokens[cut : cut + (len(tokens) - cut) // (LENGTH + 1) * (LENGTH + 1)].reshape(-1, LENGTH + 1)
    pieces = np.random.default_rng(0).permutation(pieces)
    for name, count in TEXTS.items():
        part, pieces = pieces[:count], pieces[count:]
        if name == "calibration":
            np.savez(chosen.output / f"{name}.npz", input_ids=part[:, :-1])
        else:
            np.savez(chosen.output / f"{name}.npz", input_ids=part[:, :-1], labels=part[:, 1:])


def trained(tokens: np.ndarray, letters: int, steps: int) -> dict[str, np.ndarray]:
    """Return the weights after some steps of AdamW.

    Args:
        tokens: (characters,), int64.
        letters: Size of the alphabet.
        steps: Each of 16 stretches of CONTEXT characters.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    shapes = {"embedding": (letters, WIDTH), "places": (CONTEXT, WIDTH), "head": (WIDTH, letters)}
    for block in range(BLOCKS):
        shapes |= {f"{block}.{name}": (WIDTH, WIDTH) for name in ("q", "k", "v", "o")}
        shapes |= {f"{block}.up": (WIDTH, 4 * WIDTH), f"{block}.down": (4 * WIDTH, WIDTH)}
    weights = {name: torch.nn.Parameter(torch.randn(shape) * (shape[0] ** -0.5 if "." in name else 0.1)) for name, shape in shapes.items()}
    optimizer = torch.optim.AdamW(weights.values(), lr=2e-3, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
    text = torch.from_numpy(tokens)
    for step in range(steps):
        starts = rng.integers(0, len(tokens) - CONTEXT - 1, 16)
        stretch = torch.stack([text[start : start + CONTEXT + 1] for start in starts])
        logits = forward(weights, stretch[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, letters), stretch[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step}: {loss.item():.3f} nats a character", flush=True)
    return {name: weight.detach().numpy() for name, weight in weights.items()}


def forward(weights: dict[str, torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
    """Return the logits, (texts, characters, letters), of tokens, (texts, characters)."""
    texts, count = tokens.shape
    h = weights["embedding"][tokens] + weights["places"][:count]
    for block in range(BLOCKS):
        own = {name.split(".")[1]: weight for name, weight in weights.items() if name.startswith(f"{block}.")}
        x = _normal(h)
        q, k, v = ((x @ own[name]).reshape(texts, count, HEADS, -1).transpose(1, 2) for name in ("q", "k", "v"))
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + mixed.transpose(1, 2).reshape(texts, count, WIDTH) @ own["o"]
        h = h + torch.nn.functional.gelu(_normal(h) @ own["up"]) @ own["down"]
    return _normal(h) @ weights["head"]


def decoder(weights: dict[str, np.ndarray], letters: int) -> onnx.ModelProto:
    """Return the network with caches: one token a call, or more."""
    size = WIDTH // HEADS
    caches = [f"{block}_{kind}" for block in range(BLOCKS) for kind in ("key", "value")]
    held = ", ".join(f"float[batch,{HEADS},past_sequence_length,{size}] past_{name}" for name in caches)
    given = ", ".join(f"float[batch,{HEADS},total_sequence_length,{size}] present_{name}" for name in caches)
    lines = ["tokens = Gather(embedding, input_ids)", "where = Gather(places, position_ids)", "h0 = Add(tokens, where)"]
    lines += ["seen = Cast<to = 1>(attention_mask)", "wide_mask = Unsqueeze(seen, axes12)", "hidden = Sub(one, wide_mask)"]
    lines += ["by_mask = Mul(hidden, lowest)"]
    lines += ["ids = Shape(attention_mask)", "total = Gather<axis = 0>(ids, index1)", "columns = Range(zero, total, step)"]
    lines += ["rows = Unsqueeze(position_ids, axes13)", "later = Greater(columns, rows)", "as_number = Cast<to = 1>(later)"]
    lines += ["by_order = Mul(as_number, lowest)", "bias = Add(by_mask, by_order)"]
    for block in range(BLOCKS):
        n, before = f"b{block}", f"h{2 * block}"
        lines += _normal_lines(before, f"{n}_x")
        for part in "qkv":
            lines += [f"{n}_{part}0 = MatMul({n}_x, w{block}_{part})", f"{n}_{part}1 = Reshape({n}_{part}0, split)"]
            lines += [f"{n}_{part} = Transpose<perm = [0, 2, 1, 3]>({n}_{part}1)"]
        lines += [f"present_{block}_key = Concat<axis = 2>(past_{block}_key, {n}_k)"]
        lines += [f"present_{block}_value = Concat<axis = 2>(past_{block}_value, {n}_v)"]
        lines += [f"{n}_turned = Transpose<perm = [0, 1, 3, 2]>(present_{block}_key)", f"{n}_raw = MatMul({n}_q, {n}_turned)"]
        lines += [f"{n}_scaled = Div({n}_raw, root)", f"{n}_masked = Add({n}_scaled, bias)", f"{n}_shares = Softmax<axis = -1>({n}_masked)"]
        lines += [f"{n}_mixed = MatMul({n}_shares, present_{block}_value)", f"{n}_back = Transpose<perm = [0, 2, 1, 3]>({n}_mixed)"]
        lines += [f"{n}_joined = Reshape({n}_back, together)", f"{n}_out = MatMul({n}_joined, w{block}_o)"]
        lines += [f"h{2 * block + 1} = Add({before}, {n}_out)"]
        lines += _normal_lines(f"h{2 * block + 1}", f"{n}_y")
        lines += [f"{n}_up = MatMul({n}_y, w{block}_up)", f"{n}_turn = Div({n}_up, root2)", f"{n}_erf = Erf({n}_turn)"]
        lines += [f"{n}_more = Add({n}_erf, one)", f"{n}_twice = Mul({n}_up, {n}_more)", f"{n}_gelu = Mul({n}_twice, half)"]
        lines += [f"{n}_down = MatMul({n}_gelu, w{block}_down)", f"h{2 * block + 2} = Add(h{2 * block + 1}, {n}_down)"]
    lines += [*_normal_lines(f"h{2 * BLOCKS}", "last"), "logits = MatMul(last, head)"]
    signature = (
        "int64[batch,sequence_length] input_ids, int64[batch,total_sequence_length] attention_mask, "
        f"int64[batch,sequence_length] position_ids, {held}"
    )
    body = "\n".join(lines)
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]>\ndecoder ({signature}) => (float[batch,sequence_length,{letters}] logits, {given})\n'
        f"{{\n{body}\n}}"
    )
    arrays = {name if "." not in name else f"w{name.replace('.', '_')}": array for name, array in weights.items()}
    arrays |= {"split": np.array([0, 0, HEADS, size]), "together": np.array([0, 0, WIDTH]), "axes12": np.array([1, 2])}
    arrays |= {"axes13": np.array([1, 3]), "index1": np.array(1), "zero": np.array(0), "step": np.array(1)}
    scalars = {"one": 1.0, "lowest": -1e9, "root": size**0.5, "root2": 2.0**0.5, "half": 0.5, "tiny": 1e-6}
    arrays |= {name: np.array(value, dtype=np.float32) for name, value in scalars.items()}
    model.graph.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items())
    for cache in caches:
        dotted = cache.replace("_", ".")
        _rename(model.graph, f"past_{cache}", f"past_key_values.{dotted}")
        _rename(model.graph, f"present_{cache}", f"present.{dotted}")
    onnx.checker.check_model(model)
    return model


def _normal(h: torch.Tensor) -> torch.Tensor:
    return h / torch.sqrt((h * h).mean(dim=-1, keepdim=True) + 1e-6)


def _normal_lines(taken: str, name: str) -> list[str]:
    return [
        f"{name}_square = Mul({taken}, {taken})",
        f"{name}_mean = ReduceMean<axes = [-1], keepdims = 1>({name}_square)",
        f"{name}_safe = Add({name}_mean, tiny)",
        f"{name}_root = Sqrt({name}_safe)",
        f"{name} = Div({taken}, {name}_root)",
    ]


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = new if name == old else name
    for value in (*graph.input, *graph.output):
        value.name = new if value.name == old else value.name


if __name__ == "__main__":
    main()
