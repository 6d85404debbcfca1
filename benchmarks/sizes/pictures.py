"""Networks that read pictures: ResNet50, and a detector of YOLO's form with its decoded head."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.sizes.large_network import Array, LargeNetwork

CLASSES = 1000
_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride
_RESIDUAL_GAIN = 0.2  # of a block's last convolution: the sum of sixteen blocks keeps its size

OBJECTS = 80
_WIDTHS, _DEPTHS = (32, 64, 128, 256, 512), (1, 2, 2, 1)  # YOLOv8s
_BINS = 16  # of each side of a box
_NO_OBJECT = -5.0  # mean logit of a score


def resnet50(path: Path) -> None:
    """Write ResNet50 with its batch normalizations folded: (n, 3, 224, 224) to (n, 1000)."""
    with LargeNetwork(path) as network:
        last = network.node("Relu", network.convolution("picture", (3, 64), 7, stride=2))
        last = network.node("MaxPool", last, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        channels = 64
        for width, blocks, stage_stride in _STAGES:
            for block in range(blocks):
                stride = stage_stride if block == 0 else 1
                inside = network.node("Relu", network.convolution(last, (channels, width), 1))
                inside = network.node("Relu", network.convolution(inside, (width, width), 3, stride=stride))
                inside = network.convolution(inside, (width, 4 * width), 1, gain=_RESIDUAL_GAIN)
                if block == 0:
                    last = network.convolution(last, (channels, 4 * width), 1, stride=stride, gain=1.0)
                channels = 4 * width
                last = network.node("Relu", network.node("Add", inside, last))
        pooled = network.node("Flatten", network.node("GlobalAveragePool", last), axis=1)
        weight = network.constant(network.normal(channels, CLASSES, deviation=(1.0 / channels) ** 0.5))
        network.node("Gemm", pooled, weight, network.constant(network.normal(CLASSES, deviation=0.02)), called="logits")
        network.save({"picture": ("float32", ("n", 3, 224, 224))}, {"logits": ("float32", ("n", CLASSES))}, one_file=True)


def detector(path: Path, side: int = 640) -> None:
    """Write a detector of YOLOv8s' form: (n, 3, side, side) to (n, 4 + OBJECTS, cells), boxes decoded to pixels, scores 0 to 1."""
    with LargeNetwork(path) as network:
        maker = _Detector(network)
        last, levels = maker.convolution("picture", (3, _WIDTHS[0]), 3, stride=2), []
        for index, depth in enumerate(_DEPTHS):
            last = maker.convolution(last, (_WIDTHS[index], _WIDTHS[index + 1]), 3, stride=2)
            last = maker.bottlenecks(last, (_WIDTHS[index + 1], _WIDTHS[index + 1]), depth, adds=True)
            levels.append(last)
        eighth, sixteenth, _ = levels[1:]
        deep = maker.pooled(last, _WIDTHS[4])
        middle = maker.bottlenecks(maker.joined(maker.twice(deep), sixteenth), (_WIDTHS[4] + _WIDTHS[3], _WIDTHS[3]), 1)
        fine = maker.bottlenecks(maker.joined(maker.twice(middle), eighth), (_WIDTHS[3] + _WIDTHS[2], _WIDTHS[2]), 1)
        down = maker.convolution(fine, (_WIDTHS[2], _WIDTHS[2]), 3, stride=2)
        middle = maker.bottlenecks(maker.joined(down, middle), (_WIDTHS[2] + _WIDTHS[3], _WIDTHS[3]), 1)
        down = maker.convolution(middle, (_WIDTHS[3], _WIDTHS[3]), 3, stride=2)
        coarse = maker.bottlenecks(maker.joined(down, deep), (_WIDTHS[3] + _WIDTHS[4], _WIDTHS[4]), 1)
        heads = [maker.head(one, width) for one, width in ((fine, _WIDTHS[2]), (middle, _WIDTHS[3]), (coarse, _WIDTHS[4]))]
        boxes = network.node("Concat", *(box for box, _ in heads), axis=2)
        scores = network.node("Sigmoid", network.node("Concat", *(score for _, score in heads), axis=2))
        network.node("Concat", maker.decoded(boxes, side), scores, axis=1, called="detections")
        cells = sum((side // stride) ** 2 for stride in (8, 16, 32))
        network.save({"picture": ("float32", ("n", 3, side, side))}, {"detections": ("float32", ("n", 4 + OBJECTS, cells))}, one_file=True)


class _Detector:
    """The parts of the detector."""

    def __init__(self, network: LargeNetwork) -> None:
        self._network = network

    def convolution(self, source: str, channels: tuple[int, int], size: int, *, stride: int = 1) -> str:
        made = self._network.convolution(source, channels, size, stride=stride, gain=2.0)
        return self._network.node("Mul", made, self._network.node("Sigmoid", made))

    def bottlenecks(self, source: str, channels: tuple[int, int], depth: int, *, adds: bool = False) -> str:
        """Add a "C2f" block: two halves, one of which goes through bottlenecks, and all of it joined."""
        network, half = self._network, channels[1] // 2
        both = self.convolution(source, (channels[0], channels[1]), 1)
        bounds = network.shape(0), network.shape(half), network.shape(2 * half), network.shape(1)
        parts = [network.node("Slice", both, bounds[0], bounds[1], bounds[3]), network.node("Slice", both, bounds[1], bounds[2], bounds[3])]
        for _ in range(depth):
            inside = self.convolution(self.convolution(parts[-1], (half, half), 3), (half, half), 3)
            parts.append(network.node("Add", parts[-1], inside) if adds else inside)
        return self.convolution(network.node("Concat", *parts, axis=1), ((2 + depth) * half, channels[1]), 1)

    def pooled(self, source: str, width: int) -> str:
        """Add a "SPPF" block: three poolings one after the other, joined."""
        parts = [self.convolution(source, (width, width // 2), 1)]
        for _ in range(3):
            parts.append(self._network.node("MaxPool", parts[-1], kernel_shape=[5, 5], strides=[1, 1], pads=[2, 2, 2, 2]))
        return self.convolution(self._network.node("Concat", *parts, axis=1), (2 * width, width), 1)

    def twice(self, source: str) -> str:
        """Double height and width."""
        factors = self._network.constant(np.asarray([1.0, 1.0, 2.0, 2.0], dtype=np.float32))
        return self._network.node(
            "Resize", source, "", factors, mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric"
        )

    def joined(self, *sources: str) -> str:
        return self._network.node("Concat", *sources, axis=1)

    def head(self, source: str, width: int) -> tuple[str, str]:
        """Add a level's head and return bins of boxes (n, 4 * _BINS, cells) and logits of scores (n, OBJECTS, cells)."""
        made = []
        for inner, out, bias in ((64, 4 * _BINS, 0.0), (_WIDTHS[2], OBJECTS, _NO_OBJECT)):
            inside = self.convolution(self.convolution(source, (width, inner), 3), (inner, inner), 3)
            flat = self._network.shape(0, out, -1)
            made.append(self._network.node("Reshape", self._network.convolution(inside, (inner, out), 1, gain=1.0, bias=bias), flat))
        return made[0], made[1]

    def decoded(self, boxes: str, side: int) -> str:
        """Decode bins (n, 4 * _BINS, cells) to boxes (n, 4, cells): centre, width and height in pixels."""
        network = self._network
        bins = network.node("Reshape", boxes, network.shape(0, 4, _BINS, -1))
        shares = network.node("Softmax", network.node("Transpose", bins, perm=[0, 2, 1, 3]), axis=1)
        weights = network.constant(np.arange(_BINS, dtype=np.float32).reshape(1, _BINS, 1, 1))
        distances = network.node("ReduceSum", network.node("Mul", shares, weights), network.shape(1), keepdims=0)
        low, high, axis = network.shape(0), network.shape(2), network.shape(1)
        near, far = network.node("Slice", distances, low, high, axis), network.node("Slice", distances, high, network.shape(4), axis)
        centres, strides = _cells(side)
        places = network.constant(centres)
        first, last = network.node("Sub", places, near), network.node("Add", places, far)
        middle = network.node("Mul", network.node("Add", first, last), network.constant(np.asarray(0.5, dtype=np.float32)))
        both = network.node("Concat", middle, network.node("Sub", last, first), axis=1)
        return network.node("Mul", both, network.constant(strides))


def _cells(side: int) -> tuple[Array, Array]:
    """Return the centres of all cells in units of their strides, (1, 2, cells), and the strides, (1, 1, cells)."""
    centres, strides = [], []
    for stride in (8, 16, 32):
        places = np.arange(side // stride, dtype=np.float32) + 0.5
        rows, columns = np.meshgrid(places, places, indexing="ij")
        centres.append(np.stack([columns.ravel(), rows.ravel()]))
        strides.append(np.full(columns.size, stride, dtype=np.float32))
    return np.concatenate(centres, axis=1)[None], np.concatenate(strides)[None, None]
