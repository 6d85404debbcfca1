"""Transformers: BERT-base, ViT-B/16 and a decoder; and a stack of dense layers that is larger than one file may be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.sizes.large_network import LargeNetwork

KINDS = 8  # classes of texts
DENSE_INPUTS = 512
_PATCHES = 196  # of a picture


@dataclass(frozen=True, slots=True)
class TransformerSize:
    """Of a transformer; ``words`` is of its vocabulary, if it has one."""

    width: int
    inner: int
    heads: int
    layers: int
    words: int = 0


BERT = TransformerSize(768, 3072, 12, 12, 30522)
VIT = TransformerSize(768, 3072, 12, 12)
DECODER = TransformerSize(2048, 5504, 16, 4, 16000)


def bert_base(path: Path, tokens: int = 128, size: TransformerSize = BERT) -> None:
    """Write BERT-base with a classifier: ``input_ids`` and ``attention_mask`` (n, tokens) to (n, KINDS)."""
    with LargeNetwork(path) as network:
        places = network.constant(network.normal(1, tokens, size.width, deviation=0.5))
        words = network.node("Gather", network.constant(network.normal(size.words, size.width, deviation=1.0)), "input_ids")
        last = network.layer_norm(network.node("Add", words, places), size.width)
        mask = network.node("Unsqueeze", network.node("Cast", "attention_mask", to=1), network.shape(1, 2))
        one, least = (network.constant(np.asarray(value, dtype=np.float32)) for value in (1.0, -1e4))
        bias = network.node("Mul", network.node("Sub", one, mask), least)
        for _ in range(size.layers):
            attended = _attention(network, last, size, tokens, bias=bias)
            last = network.layer_norm(network.node("Add", last, attended), size.width)
            inside = _gelu(network, network.dense(last, (size.width, size.inner), gain=2.0))
            last = network.layer_norm(network.node("Add", last, network.dense(inside, (size.inner, size.width))), size.width)
        first = network.node("Gather", last, network.constant(np.asarray(0, dtype=np.int64)), axis=1)
        pooled = network.node("Tanh", network.dense(first, (size.width, size.width)))
        weight = network.constant(network.normal(size.width, KINDS, deviation=0.1))
        network.node("Gemm", pooled, weight, network.constant(network.normal(KINDS, deviation=0.02)), called="logits")
        read = ("int64", ("n", tokens))
        network.save({"input_ids": read, "attention_mask": read}, {"logits": ("float32", ("n", KINDS))}, one_file=True)


def vit_base(path: Path, size: TransformerSize = VIT) -> None:
    """Write ViT-B/16: (n, 3, 224, 224) to (n, 1000)."""
    with LargeNetwork(path) as network:
        weight = network.constant(network.normal(size.width, 3, 16, 16, deviation=(1.0 / 768) ** 0.5))
        patches = network.node("Conv", "picture", weight, network.constant(network.normal(size.width, deviation=0.02)), strides=[16, 16])
        patches = network.node("Reshape", patches, network.shape(0, size.width, _PATCHES))
        patches = network.node("Transpose", patches, perm=[0, 2, 1])
        samples = network.node("Slice", network.node("Shape", "picture"), network.shape(0), network.shape(1))
        rest = network.node("Concat", samples, network.shape(1, size.width), axis=0)
        first = network.node("Expand", network.constant(network.normal(1, 1, size.width, deviation=0.5)), rest)
        last = network.node("Concat", first, patches, axis=1)
        last = network.node("Add", last, network.constant(network.normal(1, _PATCHES + 1, size.width, deviation=0.5)))
        for _ in range(size.layers):
            attended = _attention(network, network.layer_norm(last, size.width), size, _PATCHES + 1)
            last = network.node("Add", last, attended)
            inside = network.dense(network.layer_norm(last, size.width), (size.width, size.inner), gain=2.0)
            last = network.node("Add", last, network.dense(_gelu(network, inside), (size.inner, size.width)))
        last = network.layer_norm(last, size.width)
        first = network.node("Gather", last, network.constant(np.asarray(0, dtype=np.int64)), axis=1)
        weight = network.constant(network.normal(size.width, 1000, deviation=(1.0 / size.width) ** 0.5))
        network.node("Gemm", first, weight, network.constant(network.normal(1000, deviation=0.02)), called="logits")
        network.save({"picture": ("float32", ("n", 3, 224, 224))}, {"logits": ("float32", ("n", 1000))}, one_file=True)


def decoder(path: Path, tokens: int = 32, size: TransformerSize = DECODER) -> None:
    """Write a decoder of about 1 GB: ``input_ids`` (n, tokens) to the logits of the next token, (n, words)."""
    with LargeNetwork(path) as network:
        last = network.node("Gather", network.constant(network.normal(size.words, size.width, deviation=1.0)), "input_ids")
        future = network.constant(np.triu(np.full((tokens, tokens), -1e4, dtype=np.float32), 1)[None, None])
        for _ in range(size.layers):
            attended = _attention(network, _rms_norm(network, last, size.width), size, tokens, bias=future, rotates=True, has_biases=False)
            last = network.node("Add", last, attended)
            read = _rms_norm(network, last, size.width)
            gate = network.dense(read, (size.width, size.inner), bias=False, gain=2.0)
            gate = network.node("Mul", gate, network.node("Sigmoid", gate))
            inside = network.node("Mul", gate, network.dense(read, (size.width, size.inner), bias=False))
            last = network.node("Add", last, network.dense(inside, (size.inner, size.width), bias=False))
        last = network.node("Gather", _rms_norm(network, last, size.width), network.constant(np.asarray(tokens - 1)), axis=1)
        weight = network.constant(network.normal(size.width, size.words, deviation=(4.0 / size.width) ** 0.5))
        network.node("MatMul", last, weight, called="logits")
        outputs: dict[str, tuple[str, tuple[int | str, ...]]] = {"logits": ("float32", ("n", size.words))}
        network.save({"input_ids": ("int64", ("n", tokens))}, outputs, one_file=True)


def dense_stack(path: Path, width: int = 8192, layers: int = 8) -> None:
    """Write residual dense layers, more than 2 GB together by default, weights beside the .onnx file: (n, DENSE_INPUTS) to (n, KINDS)."""
    with LargeNetwork(path) as network:
        last = network.dense("features", (DENSE_INPUTS, width))
        for _ in range(layers):
            inside = network.node("Relu", network.dense(network.layer_norm(last, width), (width, width), gain=1.0))
            last = network.node("Add", last, inside)
        weight = network.constant(network.normal(width, KINDS, deviation=(1.0 / width) ** 0.5))
        bias = network.constant(network.normal(KINDS, deviation=0.02))
        network.node("Gemm", network.layer_norm(last, width), weight, bias, called="logits")
        network.save({"features": ("float32", ("n", DENSE_INPUTS))}, {"logits": ("float32", ("n", KINDS))}, one_file=False)


def _attention(
    network: LargeNetwork,
    source: str,
    size: TransformerSize,
    tokens: int,
    *,
    bias: str = "",
    rotates: bool = False,
    has_biases: bool = True,
) -> str:
    """Add attention with several heads.

    Args:
        network: Takes the nodes.
        source: (n, tokens, width).
        size: Of the transformer.
        tokens: Of one sample.
        bias: Added to the scores of attention; none by default.
        rotates: Whether queries and keys turn with their places.
        has_biases: Whether the products have some.
    """
    head = size.width // size.heads
    split = network.shape(0, tokens, size.heads, head)

    def projected(*order: int) -> str:
        made = network.dense(source, (size.width, size.width), bias=has_biases)
        return network.node("Transpose", network.node("Reshape", made, split), perm=list(order))

    queries, keys = projected(0, 2, 1, 3), projected(0, 2, 1, 3)
    values = projected(0, 2, 1, 3)
    if rotates:
        queries, keys = _rotated(network, queries, tokens, head), _rotated(network, keys, tokens, head)
    scores = network.node("MatMul", queries, network.node("Transpose", keys, perm=[0, 1, 3, 2]))
    scores = network.node("Mul", scores, network.constant(np.asarray(head**-0.5, dtype=np.float32)))
    shares = network.node("Softmax", network.node("Add", scores, bias) if bias else scores, axis=-1)
    mixed = network.node("Transpose", network.node("MatMul", shares, values), perm=[0, 2, 1, 3])
    joined = network.node("Reshape", mixed, network.shape(0, tokens, size.width))
    return network.dense(joined, (size.width, size.width), bias=has_biases)


def _rotated(network: LargeNetwork, source: str, tokens: int, head: int) -> str:
    """Add rotary positions to (n, heads, tokens, head) (Su et al., 2021)."""
    angles = np.outer(np.arange(tokens), 10000.0 ** (-np.arange(0, head, 2) / head))
    both = np.concatenate([angles, angles], axis=1)[None, None]
    axis = network.shape(3)
    first = network.node("Slice", source, network.shape(0), network.shape(head // 2), axis)
    second = network.node("Slice", source, network.shape(head // 2), network.shape(head), axis)
    turned = network.node("Concat", network.node("Neg", second), first, axis=3)
    plain = network.node("Mul", source, network.constant(np.cos(both).astype(np.float32)))
    return network.node("Add", plain, network.node("Mul", turned, network.constant(np.sin(both).astype(np.float32))))


def _rms_norm(network: LargeNetwork, source: str, width: int) -> str:
    squares = network.node("ReduceMean", network.node("Mul", source, source), axes=[-1], keepdims=1)
    root = network.node("Sqrt", network.node("Add", squares, network.constant(np.asarray(1e-5, dtype=np.float32))))
    return network.node("Mul", network.node("Div", source, root), network.constant(network.uniform(0.5, 1.5, width)))


def _gelu(network: LargeNetwork, source: str) -> str:
    half, one, root = (network.constant(np.asarray(value, dtype=np.float32)) for value in (0.5, 1.0, 2.0**-0.5))
    inside = network.node("Add", network.node("Erf", network.node("Mul", source, root)), one)
    return network.node("Mul", network.node("Mul", source, inside), half)
