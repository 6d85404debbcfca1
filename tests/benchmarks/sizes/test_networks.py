"""The networks themselves, those of a size that can be chosen made small."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from benchmarks.sizes.pictures import OBJECTS, detector
from benchmarks.sizes.transformers import DENSE_INPUTS, KINDS, TransformerSize, bert_base, decoder, dense_stack, vit_base

SMALL = TransformerSize(width=32, inner=64, heads=2, layers=2, words=50)
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, SMALL.words, (2, 6))
PICTURES = RNG.standard_normal((2, 3, 224, 224)).astype(np.float32)


def outputs(path: Path, feeds: dict[str, NDArray[np.generic]]) -> NDArray[np.float32]:
    (found,) = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feeds)
    return np.asarray(found)


@pytest.mark.parametrize(
    ("write", "feeds", "shape"),
    [
        (partial(bert_base, tokens=6, size=SMALL), {"input_ids": TOKENS, "attention_mask": np.ones_like(TOKENS)}, (2, KINDS)),
        (partial(vit_base, size=SMALL), {"picture": PICTURES}, (2, 1000)),
        (partial(decoder, tokens=6, size=SMALL), {"input_ids": TOKENS}, (2, SMALL.words)),
        (partial(dense_stack, width=64, layers=2), {"features": RNG.standard_normal((2, DENSE_INPUTS)).astype(np.float32)}, (2, KINDS)),
        (partial(detector, side=64), {"picture": PICTURES[:, :, :64, :64]}, (2, 4 + OBJECTS, 84)),
    ],
    ids=["bert_base", "vit_base", "decoder", "dense_stack", "detector"],
)
def test_network_answers_differently_to_different_samples(
    tmp_path: Path, write: Callable[[Path], None], feeds: dict[str, NDArray[np.generic]], shape: tuple[int, ...]
) -> None:
    write(tmp_path / "model.onnx")
    found = outputs(tmp_path / "model.onnx", feeds)
    assert found.shape == shape
    assert np.isfinite(found).all()
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_bert_does_not_see_what_the_mask_hides(tmp_path: Path) -> None:
    bert_base(tmp_path / "model.onnx", tokens=6, size=SMALL)
    mask = (np.arange(6) < 4).astype(np.int64)[None].repeat(2, axis=0)
    changed = np.where(mask == 1, TOKENS, 7)
    first, second = (outputs(tmp_path / "model.onnx", {"input_ids": ids, "attention_mask": mask}) for ids in (TOKENS, changed))
    np.testing.assert_array_equal(first, second)


def test_dense_stack_keeps_its_weights_beside_it(tmp_path: Path) -> None:
    dense_stack(tmp_path / "model.onnx", width=64, layers=2)
    assert (tmp_path / "model.onnx.data").stat().st_size > 4 * (DENSE_INPUTS * 64 + 2 * 64 * 64)
