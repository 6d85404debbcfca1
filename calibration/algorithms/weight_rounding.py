"""Rounds the weights of a model's layers to second order, layer by layer, from the float model's own activations.

Every layer is fitted to the inputs that it has in the float model, not to those that other low layers leave it: so the levels are the same
in every assignment, and are found once. So are those of a weight that several layers have (the steps of an unrolled network): it is fitted
to what all of them read.

Most of the work is a matrix to invert for each set of inputs, as wide as they are. Where all of it together is too much, the widest inputs
are left to the nearest levels.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from calibration.algorithms.gptq import InverseFactor
from calibration.algorithms.smooth_quant import Smoothing, divided
from calibration.algorithms.weight_rows import Product, product_of
from calibration.execution.onnxruntime_session import Array
from calibration.execution.tensorwise_run import Cut
from calibration.graph.layers import Layer
from calibration.number_formats.layer_precision import Decision
from calibration.number_formats.pair_bound import adds_pairs, partners
from calibration.number_formats.precision import Precision, Scheme
from calibration.number_formats.weight_scales import INTEGERS, weight_step

MOST_ROWS = 4096  # of one batch; rows of neighbouring positions say much the same
MOST_WORK = 1e13  # multiplications of all inversions together, some minutes of two processors; two matrices 16384 wide would be more
_FACTORING = 2.4  # multiplications of an inversion and a factorization, in cubes of the width


def roundable(model: onnx.ModelProto, layers: Sequence[Layer]) -> dict[str, Product]:
    """Return how each layer whose weight can be rounded to second order multiplies, by layer."""
    nodes = {node.name: node for node in model.graph.node}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    found = {}
    for layer in layers:
        if layer.weight is not None and (product := product_of(layer, nodes[layer.name], shapes[layer.weight])) is not None:
            found[layer.name] = product
    return found


def second_order_levels(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    decisions: Sequence[Decision],
    scheme: Scheme,
    batches: Iterable[Mapping[str, Array]],
    smoothings: Sequence[Smoothing] = (),
    *,
    on_layer: Callable[[int, int], None] = lambda done, total: None,
    most_work: float = MOST_WORK,
) -> dict[tuple[str, Precision], NDArray[np.int8]]:
    """Return the integer weights of the decisions that have any, each of its weight's shape.

    Args:
        model: The prepared model.
        layers: Its layers.
        decisions: What to round; those in other precisions than INT8 and INT4, or not ``roundable``, are left out.
        scheme: How the target quantizes.
        batches: Inputs by name, each (batch, ...). What is alive between two layers is held for all of them.
        smoothings: Of the inputs of layers, where those are in INT8.
        on_layer: Told how many tensors of how many are done after each.
        most_work: Multiplications that inversions may take.
    """
    sites = _affordable(_sites(model, roundable(model, layers), decisions, smoothings), most_work)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    of_tensor: dict[str, dict[tuple[object, ...], list[_Site]]] = {}
    for site in sites:
        of_tensor.setdefault(site.product.layer.inputs[0], {}).setdefault(site.rows, []).append(site)
    readers = Counter(site.weight for site in sites)
    shared = {weight: _Shared() for weight, count in readers.items() if count > 1}

    place = {name: index for index, node in enumerate(model.graph.node) for name in node.output}
    computed = sorted((name for name in of_tensor if name in place), key=place.__getitem__)
    given = [name for name in of_tensor if name not in place]
    cut, alive = Cut(model, {name: name for name in computed}), [dict(batch) for batch in batches]
    found: dict[tuple[str, Precision], NDArray[np.int8]] = {}

    def settle(site: _Site, factors: Sequence[InverseFactor], names: Sequence[str]) -> None:
        layer = site.product.layer
        weight = np.asarray(numpy_helper.to_array(weights[str(layer.weight)]), dtype=np.float32)
        if site.smoothing is not None:
            weight = divided(weight, layer, site.smoothing.factor)
        for precision in site.precisions:
            levels = _levels(site.product, factors, weight, precision, scheme)
            found.update(((name, precision), levels) for name in names)

    inputs = [dict(batch) for batch in alive]
    for done, tensor in enumerate((*given, *computed), start=1):
        values = cut.advance(alive, tensor) if tensor in place else [batch[tensor] for batch in inputs]
        for group in of_tensor[tensor].values():
            hessian, count = _hessians(group[0].product, values, group[0].smoothing)
            own = [site for site in group if site.weight not in shared]
            factors = [InverseFactor(part) for part in hessian / max(count, 1)] if own else []
            for site in own:
                settle(site, factors, [site.product.layer.name])
            for site in group:
                if site.weight in shared and (whole := shared[site.weight]).add(site, hessian, count) == readers[site.weight]:
                    factors = [InverseFactor(part) for part in whole.total / max(whole.count, 1)]
                    settle(site, factors, whole.layers)
                    del shared[site.weight]
        on_layer(done, len(of_tensor))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Site:
    """A layer whose weight is to be rounded."""

    product: Product
    smoothing: Smoothing | None
    rows: tuple[object, ...]  # equal for sites whose weights multiply the same rows
    weight: tuple[object, ...]  # equal for sites that have one weight and may have one set of levels
    precisions: tuple[Precision, ...]


@dataclass(slots=True)
class _Shared:
    """What the layers that have one weight read, added up."""

    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(()))  # (groups, inputs, inputs)
    count: int = 0
    layers: list[str] = field(default_factory=list)

    def add(self, site: _Site, hessian: NDArray[np.float64], count: int) -> int:
        """Add what one layer reads; return how many layers there are by now."""
        self.total, self.count = self.total + hessian, self.count + count
        self.layers.append(site.product.layer.name)
        return len(self.layers)


def _sites(
    model: onnx.ModelProto, products: Mapping[str, Product], decisions: Sequence[Decision], smoothings: Sequence[Smoothing]
) -> list[_Site]:
    smoothing = {name: item for item in smoothings for name in item.layers}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    wanted: dict[tuple[str, bool], list[Precision]] = {}  # by layer, and whether its input is smoothed
    for decision in decisions:
        if decision.precision in INTEGERS and decision.layer in products:
            smoothed = decision.precision.multiplies_integers and decision.layer in smoothing
            wanted.setdefault((decision.layer, smoothed), []).append(decision.precision)
    sites = []
    for (name, smoothed), precisions in wanted.items():
        product, item = products[name], smoothing[name] if smoothed else None
        tensor = tensors[str(product.layer.weight)]
        content = hashlib.sha256(tensor.raw_data or tensor.SerializeToString(deterministic=True)).digest()
        by = item.tensor if item is not None else None
        weight = (content, product.layer.op_type, product.layer.weight_axis, product.shape, *product.key[1:], by, tuple(precisions))
        sites.append(_Site(product, item, (*product.key, by), weight, tuple(precisions)))
    return sites


def _affordable(sites: Sequence[_Site], most_work: float) -> list[_Site]:
    """Return the sites whose inversions together are little enough work, the narrowest first to be taken; in their order."""
    inversions: dict[tuple[object, ...], float] = {}
    counts = Counter(site.weight for site in sites)
    keys = [site.weight if counts[site.weight] > 1 else site.rows for site in sites]
    for site, key in zip(sites, keys, strict=True):
        groups, width, _ = site.product.matrices(np.empty(site.product.shape, dtype=np.int8)).shape
        inversions[key] = _FACTORING * groups * float(width) ** 3
    spent, taken = 0.0, set()
    for key, work in sorted(inversions.items(), key=lambda item: item[1]):
        spent += work
        if spent <= most_work:
            taken.add(key)
    return [site for site, key in zip(sites, keys, strict=True) if key in taken]


def _hessians(product: Product, values: Sequence[Array], smoothing: Smoothing | None) -> tuple[NDArray[np.float64], int]:
    """Return the sum of x'x over the rows of each group, (groups, inputs, inputs), and how many rows there are."""
    total, count = np.zeros(()), 0
    for value in values:
        rows = product.rows(np.asarray(value, dtype=np.float32), MOST_ROWS)
        if smoothing is not None:
            rows = rows * smoothing.factor
        total = total + np.matmul(rows.transpose(0, 2, 1), rows).astype(np.float64)
        count += rows.shape[1]
    return np.asarray(total), count


def _levels(
    product: Product, factors: Sequence[InverseFactor], weight: NDArray[np.float32], precision: Precision, scheme: Scheme
) -> NDArray[np.int8]:
    step = np.broadcast_to(weight_step(weight, product.layer, precision, scheme), weight.shape)
    top = 2 ** (precision.bits - 1) - 1
    bounded = precision.multiplies_integers and scheme.bounds_pairs and adds_pairs(product.layer, weight.shape)
    pairs = partners(product.layer, weight.shape) if bounded else None
    parts = zip(factors, product.matrices(weight), product.matrices(step), strict=True)
    return product.weight(np.stack([factor.levels(w, s, top, pairs) for factor, w, s in parts]))
