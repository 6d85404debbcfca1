"""Two recognisers of digit strings with CTC frames: time first as logits, and samples first as log-probabilities."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.kinds.case import Case, Outputs, Quality, of_one_input
from benchmarks.kinds.measures import characters_kept, ctc_strings, exact_matches
from benchmarks.kinds.network_builder import Network, NetworkBuilder
from benchmarks.kinds.pictures import BLANK, Strips, strips
from benchmarks.kinds.training import logistic, patch_filters, random_weights

Floats = NDArray[np.float32]

CLASSES = 11  # blank and ten digits
FRAMES, FRAME = 20, 4  # of a strip, and columns of one
FEATURES = 512

_FIRST, _SECOND = 64, 128  # channels
_COUNTS = (1500, 128, 256, 2000)  # strips to train on, to calibrate on, to validate on, and unseen


def time_first(seed: int = 3) -> Case:
    """Return the recogniser with the output (time, samples, classes), logits behind a Transpose."""
    builder, frames, head, data = _fitted(seed)
    rows = builder.node("Add", builder.node("MatMul", frames, builder.constant(head[0])), builder.constant(head[1]))
    builder.node("Transpose", rows, to="logits", perm=[1, 0, 2])
    model = builder.model({"strip": ["N", 1, 16, FRAMES * FRAME]}, {"logits": [FRAMES, "N", CLASSES]})
    return _case("CTC recogniser, time first", model, "logits", data, batch_axis=1)


def samples_first(seed: int = 4) -> Case:
    """Return the recogniser with the output (samples, time, classes), log-probabilities."""
    builder, frames, head, data = _fitted(seed)
    rows = builder.node("Add", builder.node("MatMul", frames, builder.constant(head[0])), builder.constant(head[1]))
    builder.node("LogSoftmax", rows, to="log_probs", axis=-1)
    model = builder.model({"strip": ["N", 1, 16, FRAMES * FRAME]}, {"log_probs": ["N", FRAMES, CLASSES]})
    return _case("CTC recogniser, samples first", model, "log_probs", data, batch_axis=0)


def _case(name: str, model: onnx.ModelProto, output: str, all_strips: tuple[Strips, ...], *, batch_axis: int) -> Case:
    calibration, validation, unseen = all_strips[1:]

    def measure(outputs: Outputs, reference: Outputs) -> Quality:
        found, sure = (ctc_strings(one[output].astype(np.float32), blank=BLANK) for one in (outputs, reference))
        return Quality(exact_matches(found, sure), characters_kept(found, unseen.strings))

    data = of_one_input("strip", calibration.inputs, validation.inputs, unseen.inputs)
    return Case(name, model, data, measure, "strings kept; characters", 16, batch_axes={output: batch_axis})


def _fitted(seed: int) -> tuple[NetworkBuilder, str, tuple[Floats, Floats], tuple[Strips, ...]]:
    """Return the network up to its frames, (samples, time, features), its head, and all strips."""
    rng = np.random.default_rng(seed)
    data = tuple(strips(count, rng) for count in _COUNTS)
    builder = NetworkBuilder()
    frames = _trunk(builder, data[0].inputs, rng)
    trunk = builder.model({"strip": ["N", 1, 16, FRAMES * FRAME]}, {frames: ["N", FRAMES, FEATURES]})
    features = Network(trunk.SerializeToString()).run({"strip": data[0].inputs})[frames].astype(np.float32)
    targets = np.zeros((len(features), FRAMES, CLASSES), np.float32)
    targets[..., BLANK] = 1
    for index, (string, centres) in enumerate(zip(data[0].strings, data[0].centres, strict=True)):
        for one, centre in zip(string, centres, strict=True):
            targets[index, centre // FRAME] = np.eye(CLASSES)[one]
    head = logistic(features.reshape(-1, FEATURES), targets.reshape(-1, CLASSES), is_exclusive=True)
    return builder, frames, head, data


def _trunk(builder: NetworkBuilder, pictures: Floats, rng: np.random.Generator) -> str:
    first = builder.node("Relu", builder.convolution("strip", patch_filters(pictures, _FIRST, 5, rng)))
    halved = builder.node("MaxPool", first, kernel_shape=[2, 2], strides=[2, 2])
    kernel = random_weights(rng, _SECOND, _FIRST, 5, 5, fan_in=25 * _FIRST)
    second = builder.node("MaxPool", builder.node("Relu", builder.convolution(halved, kernel)), kernel_shape=[2, 2], strides=[2, 2])
    columns = builder.node("Transpose", second, perm=[0, 3, 1, 2])
    return builder.node("Reshape", columns, builder.shape(0, FRAMES, FEATURES))
