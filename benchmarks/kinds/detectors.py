"""Two detectors of items in scenes: one output of boxes and scores together (YOLO's form), and two outputs (SSD's form).

Both read the features of the example ResNet, one box a cell of 8 x 8 pixels. Their heads are fitted: scores by logistic regression, boxes
by ridge regression on the cells that hold the centre of an item.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.kinds.case import Case, Outputs, Quality, of_one_input
from benchmarks.kinds.measures import Boxes, average_precision, suppressed
from benchmarks.kinds.network_builder import Network, NetworkBuilder, Shapes
from benchmarks.kinds.pictures import SIDE, Scenes, items, scenes
from benchmarks.kinds.training import Layer, logistic, random_weights, ridge
from examples.fashion_mnist.prepare import MODELS

Floats = NDArray[np.float32]
Decode = Callable[[Outputs], list[Boxes]]

CLASSES = (1, 8, 9)  # trousers, bags, ankle boots
RESNET_FEATURES = "/11/Relu_1_output_0"  # 64 channels, a value for 8 x 8 pixels
CHANNELS = 256
CELL, CELLS = 8, SIDE // 8
CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2  # SSD's own
PRIOR = 24.0  # side of its prior boxes, in pixels

_COUNTS = (700, 160, 320, 1000)  # scenes to train on, to calibrate on, to validate on, and unseen
_CERTAIN = 0.3  # a score from which the float model's boxes count as found
_FAINTEST = 0.02  # a score below which nobody looks at a box


@dataclass(frozen=True, slots=True)
class _Parts:
    """Scenes, the network up to its heads, and what heads learn from."""

    training: Scenes
    calibration: Scenes
    validation: Scenes
    unseen: Scenes
    features: Floats  # (cells of all training scenes, channels)
    classes: Floats  # (cells, classes): 1 in the cell with an item's centre
    corners: Floats  # (cells, 4): the item's box where there is one, else 0


def yolo_form(seed: int = 0) -> Case:
    """Return the detector with one output (samples, 4 + classes, cells): centres and sizes in pixels, scores in 0 to 1."""
    parts = _parts(seed)
    centres = _centres()
    there = parts.classes.any(axis=1)
    size = parts.corners[:, 2:] - parts.corners[:, :2]
    middle = parts.corners[:, :2] + size / 2 - np.tile(centres, (len(parts.corners) // len(centres), 1))
    boxes = ridge(parts.features[there], np.hstack([middle, size])[there])
    scores = logistic(parts.features, parts.classes)
    builder = NetworkBuilder()
    last = _trunk(builder, "images", seed)
    grid = builder.constant(np.hstack([centres, np.zeros_like(centres)]).T[np.newaxis])
    pixels = builder.node("Add", _cells(builder, last, boxes), grid)
    chances = builder.node("Sigmoid", _cells(builder, last, scores))
    builder.node("Concat", pixels, chances, to="output0", axis=1)
    model = builder.model({"images": ["N", 1, SIDE, SIDE]}, {"output0": ["N", 4 + len(CLASSES), CELLS**2]})

    def decode(outputs: Outputs) -> list[Boxes]:
        rows = np.moveaxis(outputs["output0"].astype(np.float32), 1, 2)
        half = rows[..., 2:4] / 2
        return [
            _picked(*one) for one in zip(np.concatenate([rows[..., :2] - half, rows[..., :2] + half], axis=2), rows[..., 4:], strict=True)
        ]

    return _case("detector, one output", model, parts, decode)


def ssd_form(seed: int = 1) -> Case:
    """Return the detector with two outputs: softmax scores with a background class, and offsets to prior boxes."""
    parts = _parts(seed)
    centres = np.tile(_centres(), (len(parts.corners) // CELLS**2, 1))
    there = parts.classes.any(axis=1)
    size = np.maximum(parts.corners[:, 2:] - parts.corners[:, :2], 1)
    middle = parts.corners[:, :2] + size / 2
    offsets = np.hstack([(middle - centres) / PRIOR / CENTRE_VARIANCE, np.log(size / PRIOR) / SIZE_VARIANCE])
    boxes = ridge(parts.features[there], offsets[there])
    scores = logistic(parts.features, np.hstack([1 - parts.classes.sum(axis=1, keepdims=True), parts.classes]), is_exclusive=True)
    builder = NetworkBuilder()
    last = _trunk(builder, "image", seed)
    builder.node("Softmax", builder.node("Transpose", _cells(builder, last, scores), perm=[0, 2, 1]), to="scores", axis=-1)
    builder.node("Transpose", _cells(builder, last, boxes), to="boxes", perm=[0, 2, 1])
    shapes: Shapes = {"scores": ["N", CELLS**2, len(CLASSES) + 1], "boxes": ["N", CELLS**2, 4]}
    model = builder.model({"image": ["N", 1, SIDE, SIDE]}, shapes)

    def decode(outputs: Outputs) -> list[Boxes]:
        rows = outputs["boxes"].astype(np.float32)
        middles = _centres() + rows[..., :2] * CENTRE_VARIANCE * PRIOR
        half = PRIOR * np.exp(rows[..., 2:] * SIZE_VARIANCE) / 2
        corners = np.concatenate([middles - half, middles + half], axis=2)
        return [_picked(*one) for one in zip(corners, outputs["scores"][..., 1:].astype(np.float32), strict=True)]

    return _case("detector, two outputs", model, parts, decode)


def _case(name: str, model: onnx.ModelProto, parts: _Parts, decode: Decode) -> Case:
    truth = [
        Boxes(boxes, np.ones(len(boxes), np.float32), classes)
        for boxes, classes in zip(parts.unseen.boxes, parts.unseen.classes, strict=True)
    ]

    def measure(outputs: Outputs, reference: Outputs) -> Quality:
        found = decode(outputs)
        sure = [_at_least(boxes, _CERTAIN) for boxes in decode(reference)]
        return Quality(average_precision(found, sure), average_precision(found, truth))

    data = of_one_input(model.graph.input[0].name, parts.calibration.inputs, parts.validation.inputs, parts.unseen.inputs)
    return Case(name, model, data, measure, "AP 0.5:0.95", 16)


def _parts(seed: int) -> _Parts:
    rng = np.random.default_rng(seed)
    train, test = items("train"), items("test")
    sources = (train, train, test.of(0, 5000), test.of(5000, 10000))
    training, calibration, validation, unseen = (scenes(one, CLASSES, n, rng) for one, n in zip(sources, _COUNTS, strict=True))
    builder = NetworkBuilder()
    last = _trunk(builder, "input", seed)
    trunk = builder.model({"input": ["N", 1, SIDE, SIDE]}, {last: ["N", CHANNELS, CELLS, CELLS]})
    found = Network(trunk.SerializeToString()).run({"input": training.inputs})[last]
    classes = np.zeros((len(found), CELLS**2, len(CLASSES)), np.float32)
    corners = np.zeros((len(found), CELLS**2, 4), np.float32)
    for index, (boxes, kinds) in enumerate(zip(training.boxes, training.classes, strict=True)):
        columns, rows = (((boxes[:, axis] + boxes[:, axis + 2]) / 2 // CELL).astype(int) for axis in (0, 1))
        cells = np.minimum(rows, CELLS - 1) * CELLS + np.minimum(columns, CELLS - 1)
        classes[index, cells, kinds] = 1
        corners[index, cells] = boxes
    features = np.moveaxis(found, 1, 3).reshape(-1, CHANNELS).astype(np.float32)
    return _Parts(training, calibration, validation, unseen, features, classes.reshape(-1, len(CLASSES)), corners.reshape(-1, 4))


def _trunk(builder: NetworkBuilder, source: str, seed: int) -> str:
    rng = np.random.default_rng((seed, 1))
    features = builder.begin_with(onnx.load(MODELS["resnet20"]), RESNET_FEATURES, source)
    return builder.node("Relu", builder.convolution(features, random_weights(rng, CHANNELS, 64, 3, 3, fan_in=9 * 64)))


def _cells(builder: NetworkBuilder, source: str, head: Layer) -> str:
    """Add a head: (samples, outputs, cells)."""
    weight, bias = head
    made = builder.convolution(source, np.ascontiguousarray(weight.T[:, :, np.newaxis, np.newaxis]), bias)
    return builder.node("Reshape", made, builder.shape(0, weight.shape[1], -1))


def _centres() -> Floats:
    """Return the centre of each cell, (cells, 2): x, y."""
    along = (np.arange(CELLS, dtype=np.float32) + 0.5) * CELL
    return np.stack([np.tile(along, CELLS), along.repeat(CELLS)], axis=1)


def _picked(corners: Floats, scores: Floats) -> Boxes:
    """Return the best class of each cell, after suppression; scores (cells, classes)."""
    return suppressed(_at_least(Boxes(corners, scores.max(axis=1), scores.argmax(axis=1)), _FAINTEST))


def _at_least(boxes: Boxes, score: float) -> Boxes:
    enough = boxes.scores >= score
    return Boxes(boxes.corners[enough], boxes.scores[enough], boxes.classes[enough])
