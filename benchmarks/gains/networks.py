"""Networks with the layers and sizes of well-known ones, written node by node, with seeded random weights: latency asks for no others.

- ResNet50 (K. He et al., CVPR 2016), MobileNetV2 (M. Sandler et al., CVPR 2018), EfficientNet-B0 (M. Tan, Q. Le, ICML 2019): 224 x 224,
  batch normalization folded into the convolutions.
- ViT-S/16 (A. Dosovitskiy et al., ICLR 2021) with pooling in the place of a class token (L. Beyer et al., arXiv:2205.01580): 196 tokens.
- BERT, 6 layers of 768 (as DistilBERT, V. Sanh et al., 2019), 128 tokens, from the embeddings on, without a mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx

from benchmarks.kinds.network_builder import Floats, NetworkBuilder

PICTURE = (3, 224, 224)
CLASSES = 1000
_BEFORE_SILU = 1.5  # of a convolution: x sigmoid(x) has about a third of the variance of x, and large values grow


class _Maker(NetworkBuilder):
    """Adds layers with random weights that keep values of about the size that they have."""

    def __init__(self) -> None:
        super().__init__()
        self._rng = np.random.default_rng(0)

    def weight(self, *shape: int, fan_in: int, gain: float = 1.0) -> Floats:
        """Return normal weights whose sum over ``fan_in`` inputs keeps their variance, times ``gain``."""
        return (self._rng.standard_normal(shape) * gain / math.sqrt(fan_in)).astype(np.float32)

    def number(self, value: float) -> str:
        """Add a scalar."""
        return self.constant(np.asarray(value, dtype=np.float32))

    def conv(self, source: str, read: int, written: int, size: int, *, stride: int = 1, groups: int = 1, gain: float = 1.4) -> str:
        """Add a convolution with a bias that keeps the size, divided by the stride."""
        kernel = self.weight(written, read // groups, size, size, fan_in=read // groups * size * size, gain=gain)
        inputs = (source, self.constant(kernel), self.constant(np.zeros(written, dtype=np.float32)))
        return self.node("Conv", *inputs, pads=[size // 2] * 4, strides=[stride, stride], group=groups)

    def relu(self, source: str) -> str:
        """Add a Relu."""
        return self.node("Relu", source)

    def relu6(self, source: str) -> str:
        """Add a Clip to 0..6."""
        return self.node("Clip", source, self.number(0.0), self.number(6.0))

    def silu(self, source: str) -> str:
        """Add x sigmoid(x)."""
        return self.node("Mul", source, self.node("Sigmoid", source))

    def gelu(self, source: str) -> str:
        """Add x (1 + erf(x / sqrt 2)) / 2."""
        erf = self.node("Erf", self.node("Mul", source, self.number(1 / math.sqrt(2))))
        half = self.node("Mul", source, self.number(0.5))
        return self.node("Mul", half, self.node("Add", erf, self.number(1.0)))

    def linear(self, source: str, read: int, written: int, *, gain: float = 1.0) -> str:
        """Add a product of the last axis and a bias."""
        product = self.node("MatMul", source, self.constant(self.weight(read, written, fan_in=read, gain=gain)))
        return self.node("Add", product, self.constant(np.zeros(written, dtype=np.float32)))

    def norm(self, source: str, width: int) -> str:
        """Add a layer normalization."""
        ones, zeros = np.ones(width, dtype=np.float32), np.zeros(width, dtype=np.float32)
        return self.node("LayerNormalization", source, self.constant(ones), self.constant(zeros), axis=-1, epsilon=1e-6)

    def attention(self, source: str, width: int, heads: int, tokens: int) -> str:
        """Add a self-attention with its four products."""

        def split(name: str, axes: list[int]) -> str:
            return self.node("Transpose", self.node("Reshape", name, self.shape(0, tokens, heads, width // heads)), perm=axes)

        query, value = (split(self.linear(source, width, width), [0, 2, 1, 3]) for _ in range(2))
        key = split(self.linear(source, width, width), [0, 2, 3, 1])
        scores = self.node("Mul", self.node("MatMul", query, key), self.number(1 / math.sqrt(width // heads)))
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), value)
        joined = self.node("Reshape", self.node("Transpose", mixed, perm=[0, 2, 1, 3]), self.shape(0, tokens, width))
        return self.linear(joined, width, width, gain=0.5)

    def classified(self, source: str, width: int) -> onnx.ModelProto:
        """Return the network of pictures whose last feature map, (samples, width, h, w), is pooled and classified."""
        pooled = self.node("Flatten", self.node("GlobalAveragePool", source))
        self.dense(pooled, self.weight(width, CLASSES, fan_in=width), np.zeros(CLASSES, dtype=np.float32), to="logits")
        return self.model({"input": ("N", *PICTURE)}, {"logits": ("N", CLASSES)})


def resnet50() -> onnx.ModelProto:
    """Return ResNet50, with the stride on the 3 x 3 convolutions."""
    make = _Maker()
    x = make.node("MaxPool", make.relu(make.conv("input", 3, 64, 7, stride=2)), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    read = 64
    for width, blocks, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            stride = first if block == 0 else 1
            skip = x if block else make.conv(x, read, 4 * width, 1, stride=stride, gain=1.0)
            inner = make.relu(make.conv(x, read, width, 1))
            inner = make.conv(make.relu(make.conv(inner, width, width, 3, stride=stride)), width, 4 * width, 1, gain=0.3)
            x, read = make.relu(make.node("Add", inner, skip)), 4 * width
    return make.classified(x, read)


def mobilenetv2() -> onnx.ModelProto:
    """Return MobileNetV2 at width 1."""
    make = _Maker()
    x, read = make.relu6(make.conv("input", 3, 32, 3, stride=2)), 32
    for wider, written, blocks, first in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for block in range(blocks):
            stride, inner = first if block == 0 else 1, x
            if wider > 1:
                inner = make.relu6(make.conv(inner, read, read * wider, 1))
            inner = make.relu6(make.conv(inner, read * wider, read * wider, 3, stride=stride, groups=read * wider))
            inner = make.conv(inner, read * wider, written, 1, gain=0.7)
            x, read = make.node("Add", inner, x) if block else inner, written
    return make.classified(make.relu6(make.conv(x, read, 1280, 1)), 1280)


def efficientnet_b0() -> onnx.ModelProto:
    """Return EfficientNet-B0, with squeeze and excitation."""
    make = _Maker()
    x, read = make.silu(make.conv("input", 3, 32, 3, stride=2, gain=_BEFORE_SILU)), 32
    for wider, written, blocks, first, size in (
        (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
    ):  # fmt: skip
        for block in range(blocks):
            stride, inner, width = first if block == 0 else 1, x, read * wider
            if wider > 1:
                inner = make.silu(make.conv(inner, read, width, 1, gain=_BEFORE_SILU))
            inner = make.silu(make.conv(inner, width, width, size, stride=stride, groups=width, gain=_BEFORE_SILU))
            squeezed = make.silu(make.conv(make.node("GlobalAveragePool", inner), width, max(read // 4, 1), 1))
            inner = make.node("Mul", inner, make.node("Sigmoid", make.conv(squeezed, max(read // 4, 1), width, 1)))
            inner = make.conv(inner, width, written, 1, gain=_BEFORE_SILU)
            x, read = make.node("Add", inner, x) if block else inner, written
    return make.classified(make.silu(make.conv(x, read, 1280, 1, gain=_BEFORE_SILU)), 1280)


def vit_s16() -> onnx.ModelProto:
    """Return ViT-S/16: 12 layers of 384, 6 heads."""
    width, heads, tokens = 384, 6, 196
    make = _Maker()
    kernel = make.weight(width, 3, 16, 16, fan_in=768)
    patches = make.node("Conv", "input", make.constant(kernel), strides=[16, 16])
    x = make.node("Transpose", make.node("Reshape", patches, make.shape(0, width, tokens)), perm=[0, 2, 1])
    x = make.node("Add", x, make.constant(make.weight(1, tokens, width, fan_in=1, gain=0.02)))
    for _ in range(12):
        x = make.node("Add", x, make.attention(make.norm(x, width), width, heads, tokens))
        inner = make.gelu(make.linear(make.norm(x, width), width, 4 * width))
        x = make.node("Add", x, make.linear(inner, 4 * width, width, gain=0.5))
    pooled = make.node("ReduceMean", make.norm(x, width), axes=[1], keepdims=0)
    make.dense(pooled, make.weight(width, CLASSES, fan_in=width), np.zeros(CLASSES, dtype=np.float32), to="logits")
    return make.model({"input": ("N", *PICTURE)}, {"logits": ("N", CLASSES)})


def bert_6() -> onnx.ModelProto:
    """Return an encoder of 6 layers of 768, 12 heads, 128 tokens, with two classes."""
    width, heads, tokens = 768, 12, 128
    make = _Maker()
    x = make.norm("embeddings", width)
    for _ in range(6):
        x = make.norm(make.node("Add", x, make.attention(x, width, heads, tokens)), width)
        inner = make.gelu(make.linear(x, width, 4 * width))
        x = make.norm(make.node("Add", x, make.linear(inner, 4 * width, width, gain=0.5)), width)
    pooled = make.node("ReduceMean", x, axes=[1], keepdims=0)
    make.dense(pooled, make.weight(width, 2, fan_in=width), np.zeros(2, dtype=np.float32), to="logits")
    return make.model({"embeddings": ("N", tokens, width)}, {"logits": ("N", 2)})


NETWORKS: dict[str, tuple[Callable[[], onnx.ModelProto], tuple[int, ...]]] = {  # with the sizes of a sample
    "ResNet50": (resnet50, PICTURE),
    "MobileNetV2": (mobilenetv2, PICTURE),
    "EfficientNet-B0": (efficientnet_b0, PICTURE),
    "ViT-S/16": (vit_s16, PICTURE),
    "BERT, 6 layers": (bert_6, (128, 768)),
}
