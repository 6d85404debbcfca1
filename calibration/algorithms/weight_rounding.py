"""Rounds the weights of a model's layers by GPTQ, layer by layer, from the float model's own activations.

Every layer is fitted to the inputs that it has in the float model, not to those that other quantized layers leave it: so the levels are the
same in every assignment, and are found once. So are those of a weight that several layers have (the steps of an unrolled network): it is
fitted to what all of them read.

Where the bias of a layer will be corrected, errors that shift the mean of its output cost nothing. What is left of them comes from the
inputs about their mean: E[x'x] - E[x]'E[x] takes the place of E[x'x]. Filters of few weights are rounded in the best of all ways
(``enumerated_rounding``).

Most of the work is a matrix to invert for each set of inputs, as wide as they are. Where all of it together is too much, the widest inputs
are left to the nearest levels. So are wide ones of which few rows were seen: the error that other levels take away lies in the directions
of these rows, and a handful of them among thousands is what no other sample shows.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.algorithms.enumerated_rounding import MOST_WEIGHTS, Enumeration
from calibration.algorithms.gptq import InverseFactor, Rounder
from calibration.algorithms.smooth_quant import SmoothQuantScaling, divided
from calibration.algorithms.weight_rows import Product, product_of
from calibration.execution.onnxruntime_session import Array
from calibration.execution.tensorwise_run import TensorwiseRun
from calibration.graph.layers import Layer
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.pair_bound import adds_pairs, partners
from calibration.number_formats.precision import Precision, Scheme
from calibration.number_formats.weight_scales import INTEGERS, weight_step
from calibration.onnx_model.weights_in_file import array_of, raw_bytes

MOST_ROWS = 4096  # of one batch; rows of neighbouring positions say much the same
MOST_WORK = 1e13  # multiplications of all inversions together, some minutes of two processors; two matrices 16384 wide would be more
COSTLY_WIDTH = 4096  # of inputs; from here on a matrix takes 134 MB in float64, and its inversion several seconds
LEAST_ROWS = 1 / 32  # of the width, of which inputs so wide are worth that
_FACTORING = 2.4  # multiplications of an inversion and a factorization, in cubes of the width


def roundable(model: onnx.ModelProto, layers: Sequence[Layer]) -> dict[str, Product]:
    """Return how each layer whose weight can be rounded by GPTQ multiplies, by layer."""
    nodes = {node.name: node for node in model.graph.node}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    found = {}
    for layer in layers:
        if layer.weight is not None and (product := product_of(layer, nodes[layer.name], shapes[layer.weight])) is not None:
            found[layer.name] = product
    return found


def gptq_levels(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    layer_precisions: Sequence[LayerPrecision],
    scheme: Scheme,
    batches: Iterable[Mapping[str, Array]],
    smooth_quants: Sequence[SmoothQuantScaling] = (),
    *,
    centred: Collection[str] = (),
    on_layer: Callable[[int, int], None] = lambda done, total: None,
    most_work: float = MOST_WORK,
    costly_width: int = COSTLY_WIDTH,
) -> dict[tuple[str, Precision], NDArray[np.int8]]:
    """Return the integer weights of the layer precisions that have any, each of its weight's shape.

    Args:
        model: The prepared model.
        layers: Its layers.
        layer_precisions: What to round; those in other precisions than INT8 and INT4, or not ``roundable``, are left out.
        scheme: How the target quantizes.
        batches: Inputs by name, each (batch, ...). What is alive between two layers is held for all of them.
        smooth_quants: Of the inputs of layers, where those are in INT8.
        centred: Names of layers whose bias will be corrected.
        on_layer: Told how many tensors of how many are done after each.
        most_work: Multiplications that inversions may take.
        costly_width: Inputs as wide as this, and wider, need LEAST_ROWS.
    """
    wanted = _weights_to_round(model, roundable(model, layers), layer_precisions, smooth_quants, frozenset(centred))
    to_round_all = _affordable(wanted, most_work)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    of_tensor: dict[str, dict[tuple[object, ...], list[_WeightToRound]]] = {}
    for to_round in to_round_all:
        of_tensor.setdefault(to_round.product.layer.inputs[0], {}).setdefault(to_round.rows, []).append(to_round)
    readers = Counter(to_round.weight for to_round in to_round_all)
    shared = {weight: _Shared() for weight, count in readers.items() if count > 1}

    place = {name: index for index, node in enumerate(model.graph.node) for name in node.output}
    computed = sorted((name for name in of_tensor if name in place), key=place.__getitem__)
    given = [name for name in of_tensor if name not in place]
    tensorwise, alive = TensorwiseRun(model, {name: name for name in computed}), [dict(batch) for batch in batches]
    found: dict[tuple[str, Precision], NDArray[np.int8]] = {}

    def round_weight(to_round: _WeightToRound, factors: Sequence[Rounder], names: Sequence[str]) -> None:
        layer = to_round.product.layer
        weight = np.asarray(array_of(weights[str(layer.weight)]), dtype=np.float32)
        if to_round.smooth_quant is not None:
            weight = divided(weight, layer, to_round.smooth_quant.factor)
        for precision in to_round.precisions:
            levels = _levels(to_round.product, factors, weight, precision, scheme)
            found.update(((name, precision), levels) for name in names)

    inputs = [dict(batch) for batch in alive]
    for done, tensor in enumerate((*given, *computed), start=1):
        values = tensorwise.advance(alive, tensor) if tensor in place else [batch[tensor] for batch in inputs]
        for group in of_tensor[tensor].values():
            if _width(group[0]) >= costly_width and _rows(group[0], values) < LEAST_ROWS * _width(group[0]):
                continue
            hessian, count = _hessians(group[0], values)
            own = [to_round for to_round in group if to_round.weight not in shared]
            factors = [_rounder(part, max(count, 1)) for part in hessian] if own else []
            for to_round in own:
                round_weight(to_round, factors, [to_round.product.layer.name])
            for to_round in group:
                if (
                    to_round.weight in shared
                    and (whole := shared[to_round.weight]).add(to_round, hessian, count) == readers[to_round.weight]
                ):
                    factors = [_rounder(part, max(whole.count, 1)) for part in whole.total]
                    round_weight(to_round, factors, whole.layers)
                    del shared[to_round.weight]
        on_layer(done, len(of_tensor))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _WeightToRound:
    """A layer whose weight is to be rounded."""

    product: Product
    smooth_quant: SmoothQuantScaling | None
    rows: tuple[object, ...]  # equal for weights whose weights multiply the same rows
    weight: tuple[object, ...]  # equal for weights that have one weight and may have one set of levels
    precisions: tuple[Precision, ...]
    is_centred: bool = False  # its bias will be corrected


@dataclass(slots=True)
class _Shared:
    """What the layers that have one weight read, added up."""

    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(()))  # (groups, inputs, inputs)
    count: int = 0
    layers: list[str] = field(default_factory=list)

    def add(self, to_round: _WeightToRound, hessian: NDArray[np.float64], count: int) -> int:
        """Add what one layer reads; return how many layers there are by now."""
        self.total, self.count = self.total + hessian, self.count + count
        self.layers.append(to_round.product.layer.name)
        return len(self.layers)


def _weights_to_round(
    model: onnx.ModelProto,
    products: Mapping[str, Product],
    layer_precisions: Sequence[LayerPrecision],
    smooth_quants: Sequence[SmoothQuantScaling],
    centred: frozenset[str],
) -> list[_WeightToRound]:
    smooth_quant = {name: item for item in smooth_quants for name in item.layers}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    wanted: dict[tuple[str, bool], list[Precision]] = {}  # by layer, and whether its input is smoothed
    for layer_precision in layer_precisions:
        if layer_precision.precision in INTEGERS and layer_precision.layer in products:
            smoothed = layer_precision.precision.takes_smooth_quant and layer_precision.layer in smooth_quant
            wanted.setdefault((layer_precision.layer, smoothed), []).append(layer_precision.precision)
    to_round_all = []
    for (name, smoothed), precisions in wanted.items():
        product, item = products[name], smooth_quant[name] if smoothed else None
        tensor = tensors[str(product.layer.weight)]
        content = hashlib.sha256(raw_bytes(tensor)).digest()
        by, is_centred = item.tensor if item is not None else None, name in centred
        weight = (content, product.layer.op_type, product.layer.weight_axis, product.shape, *product.key[1:], by, tuple(precisions))
        rows = (*product.key, by, is_centred)
        to_round_all.append(_WeightToRound(product, item, rows, weight, tuple(precisions), is_centred))
    return to_round_all


def _affordable(to_round_all: Sequence[_WeightToRound], most_work: float) -> list[_WeightToRound]:
    """Return the weights whose inversions together are little enough work, the narrowest first to be taken; in their order."""
    inversions: dict[tuple[object, ...], float] = {}
    counts = Counter(to_round.weight for to_round in to_round_all)
    keys = [to_round.weight if counts[to_round.weight] > 1 else to_round.rows for to_round in to_round_all]
    for to_round, key in zip(to_round_all, keys, strict=True):
        groups, width, _ = to_round.product.matrices(np.empty(to_round.product.shape, dtype=np.int8)).shape
        inversions[key] = _FACTORING * groups * float(width) ** 3
    spent, taken = 0.0, set()
    for key, work in sorted(inversions.items(), key=lambda item: item[1]):
        spent += work
        if spent <= most_work:
            taken.add(key)
    return [to_round for to_round, key in zip(to_round_all, keys, strict=True) if key in taken]


def _width(to_round: _WeightToRound) -> int:
    """Return how many inputs each row has."""
    return int(to_round.product.matrices(np.empty(to_round.product.shape, dtype=np.int8)).shape[1])


def _rows(to_round: _WeightToRound, values: Sequence[Array]) -> int:
    """Return of how many rows ``_hessians`` would be."""
    return sum(to_round.product.rows(np.asarray(value, dtype=np.float32), MOST_ROWS).shape[1] for value in values)


def _hessians(to_round: _WeightToRound, values: Sequence[Array]) -> tuple[NDArray[np.float64], int]:
    """Return the sum of x'x over the rows of each group, (groups, inputs, inputs), and how many rows there are.

    Of a weight whose layer's bias will be corrected, x is taken about its mean.
    """
    total, sums, count = np.zeros(()), np.zeros(()), 0
    middle: NDArray[np.float32] | None = None  # near the mean, so that the difference of large squares loses no digits
    for value in values:
        rows = to_round.product.rows(np.asarray(value, dtype=np.float32), MOST_ROWS)
        if to_round.smooth_quant is not None:
            rows = rows * to_round.smooth_quant.factor
        if to_round.is_centred and rows.shape[1]:
            middle = rows.mean(axis=1, keepdims=True) if middle is None else middle
            rows = rows - middle
        squares = np.matmul(rows.transpose(0, 2, 1), rows)
        total = squares.astype(np.float64) if total.ndim == 0 else np.add(total, squares, out=total)
        del squares
        sums = sums + rows.sum(axis=1, dtype=np.float64)
        count += rows.shape[1]
    if to_round.is_centred and count:
        for part, own in zip(total, sums, strict=True):
            part -= np.outer(own, own) / count
    return np.asarray(total), count


def _rounder(hessian: NDArray[np.float64], count: int) -> Rounder:
    """Return what rounds in the light of the sum of x'x over so many rows."""
    return Enumeration(hessian / count) if len(hessian) <= MOST_WEIGHTS else InverseFactor(hessian, count)


def _levels(
    product: Product, factors: Sequence[Rounder], weight: NDArray[np.float32], precision: Precision, scheme: Scheme
) -> NDArray[np.int8]:
    step = np.broadcast_to(weight_step(weight, product.layer, precision, scheme), weight.shape)
    grid = precision.grid
    bounded = precision.may_saturate and scheme.bounds_pairs and adds_pairs(product.layer, weight.shape)
    pairs = partners(product.layer, weight.shape) if bounded else None
    parts = zip(factors, product.matrices(weight), product.matrices(step), strict=True)
    return product.weight(np.stack([factor.levels(w, s, (grid.bottom, grid.top), pairs) for factor, w, s in parts]))
