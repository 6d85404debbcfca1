"""The networks that plans are built of, and the samples that they are calibrated and judged on.

The two networks of ``examples/`` are always at hand; EfficientNet-Lite0 and MiniLM are files that the caller has (``--models``), and so are
their samples. Where a network's samples are missing, ranges come from seeded random inputs, and nothing is said about its accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from benchmarks.order_measurements import BATCH
from calibration.data.dataset import Array
from calibration.graph.layers import Layer, find_layers
from calibration.graph_passes.normalize import prepare
from calibration.onnx_model.model_io import read_model
from examples.fashion_mnist.prepare import MODELS, PICTURES, network_input

Samples = Mapping[str, Array]

_TOKENS = 48
_VOCABULARY = 30_522  # of BERT's word pieces


@dataclass(frozen=True, slots=True)
class Listed:
    """A network as this benchmark knows it."""

    name: str
    files: tuple[str, ...]  # names that its file goes by; empty for those of ``examples/``
    data: str | None  # name of the file of its samples
    batch: int  # samples in one run of the plan


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A prepared network with its samples."""

    name: str
    model: onnx.ModelProto
    layers: tuple[Layer, ...]
    batch: int
    calibration: Samples
    validation: Samples | None  # real samples, other than those of the calibration; None where none are at hand
    samples_are: str  # in words


LISTED = (
    Listed("resnet20", (), None, BATCH),
    Listed("mobilenetv2", (), None, BATCH),
    Listed("efficientnet-lite0", ("efficientnet_lite0_imagenet.onnx",), "imagenet20_uint8.npz", 8),
    Listed("minilm", ("minilm_l6_fortunes8.onnx", "minilm.onnx"), "fortunes8_len48.npz", 8),
)


def read_network(listed: Listed, folders: Sequence[Path]) -> Network | str:
    """Return a network, or why it is left out.

    Args:
        listed: Which one.
        folders: Where its file and its samples may lie.
    """
    if listed.name in MODELS:
        with np.load(PICTURES, allow_pickle=False) as arrays:
            train, test = arrays["train_images"][:256], arrays["test_images"][:512]
        pictures: tuple[Samples, Samples] = ({"input": network_input(train)}, {"input": network_input(test)})
        return _network(listed, MODELS[listed.name], *pictures, "256 training and 512 test pictures of Fashion-MNIST")
    path = _found(listed.files, folders)
    if path is None:
        return f"{' or '.join(listed.files)} is in none of the folders given with --models"
    data = None if listed.data is None else _found((listed.data,), folders)
    if listed.name == "minilm":
        calibration, real = _texts(data)
        words = "128 training and 128 test texts" if real is not None else "32 seeded random texts; no real ones at hand"
    else:
        calibration, real = _photographs(data)
        words = "10 pictures of ImageNet for ranges and 10 others" if real is not None else "8 seeded random pictures; no real ones at hand"
    return _network(listed, path, calibration, real, words)


def _network(listed: Listed, path: Path, calibration: Samples, validation: Samples | None, words: str) -> Network:
    model = prepare(read_model(path)).model
    return Network(listed.name, model, find_layers(model), listed.batch, calibration, validation, words)


def _found(names: Sequence[str], folders: Sequence[Path]) -> Path | None:
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


def _photographs(data: Path | None) -> tuple[Samples, Samples | None]:
    if data is None:
        return {"input": np.random.default_rng(0).uniform(-1, 1, (8, 3, 224, 224)).astype(np.float32)}, None
    with np.load(data, allow_pickle=False) as arrays:
        pictures = ((arrays["images"].astype(np.float32) - 127) / 128).astype(np.float32)
    return {"input": pictures[0::2]}, {"input": pictures[1::2]}


def _texts(data: Path | None) -> tuple[Samples, Samples | None]:
    if data is None:
        rng = np.random.default_rng(0)
        lengths = rng.integers(8, _TOKENS + 1, size=32)
        mask = (np.arange(_TOKENS) < lengths[:, np.newaxis]).astype(np.int64)
        return {"input_ids": rng.integers(1000, _VOCABULARY, (32, _TOKENS)) * mask, "attention_mask": mask}, None
    with np.load(data, allow_pickle=False) as arrays:
        sets = [{"input_ids": arrays[f"ids_{part}"][:128], "attention_mask": arrays[f"am_{part}"][:128]} for part in ("train", "test")]
    return sets[0], sets[1]
