"""What is known of an output before its kind is: the operator behind it, its name, its shape, and its values on the user's samples."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from calibration.accuracy.kinds.part import Array
from calibration.accuracy.measures.sample_blocks import sample_slices
from calibration.accuracy.measures.values import finite_span

MOVING = frozenset({"Cast", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Resize", "Upsample"})
_SAME_AXES = frozenset({"Cast", "Identity", "Resize", "Upsample"})
_LINEAR = {"Gemm": -1, "MatMul": -1, "Conv": 1, "ConvTranspose": 1}  # and on which axis their output channels are
_SCALING = frozenset({"Mul", "Div", "Add", "Sub", "Clip", "Where", "Neg"})
_CUTTING = frozenset({"Split", "Slice", "Gather"})
_SHORT = 16
_ACTIVATED = {"Softmax", "LogSoftmax"}
_DEPTH, _INDEX_DEPTH = 6, 12  # nodes between an output, or the indices of its rows, and what selects them
_SELECTING = frozenset({"TopK", "NonMaxSuppression", "NonZero"})
_SUM_TOLERANCE = 1e-3  # of rows of probabilities: FP16 models round each of a thousand to 5e-4 of itself
UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Ending:
    """What computes an output, past the operators that only move, cast or resize it."""

    op_type: str | None = None  # None: an input or a constant
    class_axis: int | None = None  # in the model's form: of a Softmax, or of the channels of a linear layer; None: not known
    is_linear: bool = False
    is_moved: bool = False  # a Transpose lies behind it
    selects: bool = False  # rows that a TopK or an NMS in the graph has put in order
    chosen: tuple[int, ...] = ()  # how many rows each TopK before it chooses


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """All that is known of one output."""

    name: str
    values: Array  # (samples, ...), the float model's
    ending: Ending = Ending()
    class_axis: int | None = None  # of ``ending``, samples first
    input_shapes: tuple[tuple[int, ...], ...] = ()  # of a sample of each input
    has_targets: bool = False  # the set has a number with fractions for each of its values
    is_labelled: bool = False  # the set has a label for each row of classes that this output is read by

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.values.shape[1:]

    @property
    def is_single(self) -> bool:
        """Whether there is one value a sample."""
        return self.values.size == len(self.values)

    def is_called(self, *words: str) -> bool:
        """Whether the name holds one of the words, as a word of its own or the beginning of one."""
        split = re.sub(r"([a-z])([A-Z])", r"\1 \2", self.name)
        return any(re.search(rf"(?:^|[^a-zA-Z]){word}", split, re.IGNORECASE) is not None for word in words)

    @property
    def has_both_signs(self) -> bool:
        """Whether some finite values are below and some above zero."""
        low, high = finite_span(self.values)
        return low < 0.0 < high

    @property
    def is_within_one(self) -> bool:
        """Whether all values are in 0..1, and not all the same."""
        if not self._is_finite:
            return False
        low, high = float(self.values.min()), float(self.values.max())
        return 0.0 <= low < high <= 1.0

    @property
    def sum_axis(self) -> int | None:
        """The axis, samples first, along which probabilities sum to 1 in every place; None of none."""
        if not self.is_within_one:
            return None
        summing = [axis for axis in self._longer_axes if self._are_one(axis, 1, _SUM_TOLERANCE)]
        return self.class_axis if self.class_axis in summing else next(iter(summing), None)

    @property
    def unit_axis(self) -> int | None:
        """The axis, samples first, along which all vectors have norm 1, and hold more than zeros and ones; None of none."""
        if not self._is_finite:
            return None
        return next((axis for axis in self._longer_axes if self._are_one(axis, 2, UNIT_TOLERANCE)), None)

    @property
    def _is_finite(self) -> bool:
        return bool(self.values.size) and all(np.isfinite(self.values[part]).all() for part in sample_slices(self.values))

    @property
    def _longer_axes(self) -> tuple[int, ...]:
        """The axes of a sample that are longer than one, the last first."""
        return tuple(axis for axis in range(self.values.ndim - 1, 0, -1) if self.values.shape[axis] > 1)

    def _are_one(self, axis: int, power: int, tolerance: float) -> bool:
        """Whether all sums along an axis of the values to this power are 1, within a tolerance."""
        blocks = (np.asarray(self.values[part], dtype=np.float64) for part in sample_slices(self.values))
        return all(bool(np.abs((block**power).sum(axis=axis) - 1.0).max() <= tolerance) for block in blocks)

    @property
    def last_axis(self) -> int | None:
        """The last axis that is longer than one, where rows of classes lie by default; None where there is one value a sample."""
        return next((axis for axis in range(self.values.ndim - 1, 0, -1) if self.values.shape[axis] > 1), None)

    @property
    def column_axis(self) -> int | None:
        """The axis of columns or channels; None where that is not known.

        That of the linear layer, else of one row; of rows of vectors the last, unless the first is short and far shorter; of maps the
        first, which channels lie on, unless the last is far shorter.
        """
        shape = self.values.shape
        if self.class_axis is not None and shape[self.class_axis] > 1:
            return self.class_axis
        longer = [index for index in range(1, len(shape)) if shape[index] > 1]
        if len(longer) < 2 and len(shape) < 4:
            return longer[0] if longer else None
        first, last = 1, len(shape) - 1
        others = min((shape[index] for index in longer if index != first), default=1)
        if len(shape) == 3:
            return first if shape[first] <= _SHORT * 4 and shape[first] * 2 <= shape[last] and shape[last] > _SHORT else last
        if shape[last] <= 4 < shape[1]:
            return last
        return first if 1 < shape[first] <= max(others, _SHORT) else None


def endings(model: onnx.ModelProto) -> dict[str, Ending]:
    """Return what computes each output of the model.

    Args:
        model: The prepared model; its big weights may be missing.
    """
    producer = {name: node for node in model.graph.node for name in node.output}
    ranks = _ranks(model)
    chosen = _chosen(model)
    return {value.name: replace(_ending(value.name, producer, ranks), chosen=chosen[value.name]) for value in model.graph.output}


def of_rows(shape: Sequence[int]) -> int:
    """Return how many axes of a sample are longer than one."""
    return sum(size > 1 for size in shape)


def _ending(name: str, producer: Mapping[str, onnx.NodeProto], ranks: Mapping[str, int]) -> Ending:
    moves: list[onnx.NodeProto] = []
    last = producer.get(name)
    node = last
    while node is not None and (inner := _passed(node, producer)) is not None:
        moves.append(node)
        node = producer.get(inner)
    if last is None:
        return Ending()
    if node is None:
        return Ending(selects=_selects(last, producer))
    linear = node if node.op_type in _LINEAR else None
    if node.op_type == "Add":
        linear = next((producer[one] for one in node.input if one in producer and producer[one].op_type in _LINEAR), None)
    axis: int | None = None
    if linear is not None:
        axis = _LINEAR[linear.op_type]
    elif node.op_type in _ACTIVATED:
        axis = next((int(attribute.i) for attribute in node.attribute if attribute.name == "axis"), -1)
    rank = ranks.get(node.output[0])
    axis = axis + rank if axis is not None and axis < 0 and rank is not None else axis
    for move in reversed(moves):
        axis = _moved(axis, move, ranks)
    if axis is not None and axis < 0:
        own = ranks.get(name)
        axis = None if own is None else axis + own
    is_moved = any(move.op_type == "Transpose" for move in moves)
    return Ending(node.op_type, axis, linear is not None, is_moved, _selects(last, producer))


def _passed(node: onnx.NodeProto, producer: Mapping[str, onnx.NodeProto]) -> str | None:
    """Return the tensor that a node only moves, cuts or scales by constants; None of any other node."""
    if node.op_type in MOVING or node.op_type in _CUTTING:
        return str(node.input[0])
    computed = [one for one in node.input[node.op_type == "Where" :] if one in producer]
    if node.op_type == "Add" and computed and producer[computed[0]].op_type in _LINEAR:
        return None  # with its bias it is the linear layer itself
    return str(computed[0]) if node.op_type in _SCALING and len(computed) == 1 else None


def _moved(axis: int | None, move: onnx.NodeProto, ranks: Mapping[str, int]) -> int | None:
    """Return where an axis is after a moving operator; None where that is not known."""
    if axis is None or move.op_type in _SAME_AXES or move.op_type in _SCALING or move.op_type in {"Split", "Slice"}:
        return axis
    before, after = ranks.get(move.input[0]), ranks.get(move.output[0])
    if move.op_type == "Transpose":
        order = next((list(attribute.ints) for attribute in move.attribute if attribute.name == "perm"), None)
        if order is None:
            order = list(range(before))[::-1] if before is not None else []
        return order.index(axis % len(order)) if order else None
    if axis == -1 or (before is not None and axis == before - 1):  # the last one stays the last: rows of the same length
        return -1 if after is None else after - 1
    return axis if move.op_type == "Reshape" and axis == 1 else None


def _selects(node: onnx.NodeProto, producer: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether a node puts rows in an order that the values decide: their places, or the values, come from a TopK or an NMS."""
    seen, left = set(), [(node, 0, False)]
    while left:
        one, depth, is_index = left.pop()
        if one.op_type in _SELECTING:
            return True
        is_indexing = one.op_type in {"Gather", "GatherElements", "GatherND", "ScatterND", "ScatterElements"}
        is_step = depth < (_INDEX_DEPTH if is_index else _DEPTH) and (one.op_type in MOVING or one.op_type in _STEPS or is_indexing)
        for place, name in enumerate(one.input if is_step else ()):
            if is_indexing and place == 0 and depth > 0 and not is_index:
                continue  # what is indexed is no order; where the indices come from is, and a column of them is cut out by indexing too
            if name in producer and name not in seen:
                seen.add(name)
                left.append((producer[name], depth + 1, is_index or (is_indexing and place == 1)))
    return False


def _chosen(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return how many rows each TopK before an output of the model chooses, where a constant says it."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[str, frozenset[int]] = {}
    for node in model.graph.node:  # in topological order
        sizes = frozenset[int]().union(*(found.get(name, frozenset()) for name in node.input))
        if node.op_type == "TopK" and len(node.input) > 1 and node.input[1] in constants:
            sizes |= {int(size) for size in onnx.numpy_helper.to_array(constants[node.input[1]]).reshape(-1)}
        found |= dict.fromkeys(node.output, sizes)
    return {value.name: tuple(sorted(found.get(value.name, frozenset()))) for value in model.graph.output}


_STEPS = frozenset({"Concat", "Slice", "Expand", "Tile", "Mul", "Add", "Sub", "Div", "Mod", "Split", "Where"})


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    return {value.name: len(value.type.tensor_type.shape.dim) for value in values if value.type.tensor_type.HasField("shape")}
