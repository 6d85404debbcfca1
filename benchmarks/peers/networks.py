"""The networks that are compared on: every kind of ``benchmarks.kinds``, the examples, and networks of the reader's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from benchmarks.kinds.case import LABELS, Array, Case, Data, Outputs, Quality
from benchmarks.kinds.cases import CASES
from benchmarks.kinds.pictures import items
from examples.fashion_mnist.prepare import MODELS

CALIBRATION = 512  # training pictures of the examples

_VALIDATION = 5000  # test pictures of the examples that their jobs see; the others stay unseen


def example(name: str, batch: int) -> Case:
    """Return an example network; its job is judged by labels, as its users would."""
    train, test = items("train"), items("test")
    model = onnx.load(MODELS[name])
    key = model.graph.input[0].name
    chosen = np.sort(np.random.default_rng(0).choice(len(train.labels), size=CALIBRATION, replace=False))
    seen, unseen = test.of(0, _VALIDATION), test.of(_VALIDATION, len(test.labels))
    data = Data(
        {key: train.inputs[chosen], LABELS: train.labels[chosen]},
        {key: seen.inputs, LABELS: seen.labels},
        {key: unseen.inputs},
    )
    config = {"accuracy": {"metric": "top1"}}
    return Case(f"{name}, batch {batch}", model, data, _Top1(model.graph.output[0].name, unseen.labels), "top-1", batch, config)


def own(name: str, model: Path, calibration: Path, validation: Path, unseen: Path, batch: int) -> Case:
    """Return a classifier of the reader's own.

    Args:
        name: What the page calls it.
        model: The float model; its first output holds (samples, classes).
        calibration: An .npz as a job takes it; ``labels`` may be there.
        validation: The same; ``labels`` make the job judge by them.
        unseen: The same, with ``labels``; no job sees it.
        batch: Samples of one call.

    Raises:
        SystemExit: ``unseen`` holds no labels.
    """
    calibrated, validated, left = (_arrays(path) for path in (calibration, validation, unseen))
    if LABELS not in left:
        raise SystemExit(f"{unseen} holds {sorted(left)}; an array 'labels' is needed: the class of each unseen sample")
    read = onnx.load(model)
    labels = left.pop(LABELS)
    config = {"accuracy": {"metric": "top1"}} if LABELS in validated else {}
    return Case(name, read, Data(calibrated, validated, left), _Top1(read.graph.output[0].name, labels), "top-1", batch, config)


NETWORKS: Mapping[str, Callable[[], Case]] = {
    "mobilenetv2": partial(example, "mobilenetv2", 64),
    "mobilenetv2-1": partial(example, "mobilenetv2", 1),
    "resnet20": partial(example, "resnet20", 64),
    **CASES,
}


class _Top1:
    """The share of samples whose largest value is the right one; kept: the one of the float model."""

    def __init__(self, output: str, labels: Array) -> None:
        self._output, self._labels = output, labels

    def __call__(self, outputs: Outputs, reference: Outputs) -> Quality:
        """Return how often the float model's class is kept, and how often the class is right."""
        found, sure = (one[self._output].argmax(axis=-1) for one in (outputs, reference))
        return Quality(float(np.mean(found == sure)), float(np.mean(found == self._labels)))


def _arrays(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
