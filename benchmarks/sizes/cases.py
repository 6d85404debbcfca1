"""The table of networks, with what one sample of each is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.sizes.pictures import detector, resnet50
from benchmarks.sizes.transformers import BERT, DECODER, DENSE_INPUTS, bert_base, decoder, dense_stack, vit_base

Samples = dict[str, NDArray[np.generic]]
TEXT_TOKENS, DECODER_TOKENS, SIDE = 128, 32, 640


@dataclass(frozen=True, slots=True)
class Case:
    """One network, and its job."""

    write: Callable[[Path], None]  # the network, of random weights
    samples: Callable[[np.random.Generator, int], Samples]  # so many of them
    is_centred: bool = False  # whether its logits have a mean that would decide every answer
    config: Mapping[str, object] = field(default_factory=dict)


def _pictures(side: int) -> Callable[[np.random.Generator, int], Samples]:
    def made(rng: np.random.Generator, count: int) -> Samples:
        coarse = rng.standard_normal((count, 3, side // 16, side // 16)).astype(np.float32)
        return {
            "picture": np.repeat(np.repeat(coarse, 16, axis=2), 16, axis=3) + 0.3 * rng.standard_normal((count, 3, side, side), np.float32)
        }

    return made


def _texts(rng: np.random.Generator, count: int) -> Samples:
    lengths = rng.integers(TEXT_TOKENS // 4, TEXT_TOKENS + 1, (count, 1))
    mask = (np.arange(TEXT_TOKENS) < lengths).astype(np.int64)
    return {"input_ids": rng.integers(0, BERT.words, mask.shape) * mask, "attention_mask": mask}


def _tokens(rng: np.random.Generator, count: int) -> Samples:
    return {"input_ids": rng.integers(0, DECODER.words, (count, DECODER_TOKENS))}


def _features(rng: np.random.Generator, count: int) -> Samples:
    return {"features": rng.standard_normal((count, DENSE_INPUTS), np.float32)}


CASES: Mapping[str, Case] = {
    "resnet50": Case(resnet50, _pictures(224), is_centred=True),
    "bert-base": Case(lambda path: bert_base(path, TEXT_TOKENS), _texts, is_centred=True, config={"accuracy": {"min_relative": 0.9}}),
    "vit-b16": Case(vit_base, _pictures(224), is_centred=True, config={"accuracy": {"min_relative": 0.9}}),
    "detector": Case(lambda path: detector(path, SIDE), _pictures(SIDE)),
    "decoder": Case(lambda path: decoder(path, DECODER_TOKENS), _tokens),
    "dense-stack": Case(dense_stack, _features),
}
