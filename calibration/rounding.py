"""Rounds the weights of a model's layers to second order, layer by layer, from the float model's own activations.

Every layer is fitted to the inputs that it has in the float model, not to those that other low layers leave it: so the levels are the same
in every assignment, and are found once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from calibration.cut import Cut
from calibration.layers import Layer
from calibration.pair_bound import adds_pairs, partners
from calibration.precision import Precision, Scheme
from calibration.second_order import InverseFactor
from calibration.session import Array
from calibration.singles import Decision
from calibration.smoothing import Smoothing, divided
from calibration.weight_rows import Product, product_of
from calibration.weight_steps import INTEGERS, weight_step

MOST_ROWS = 4096  # of one batch; rows of neighbouring positions say much the same


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
    on_layer: Callable[[int], None] = lambda done: None,
) -> dict[tuple[str, Precision], NDArray[np.int8]]:
    """Return the integer weights of the decisions that have any, each of its weight's shape.

    Args:
        model: The prepared model.
        layers: Its layers.
        decisions: What to round; those in other precisions than INT8 and INT4, or not ``roundable``, are left out.
        scheme: How the target quantizes.
        batches: Inputs by name, each (batch, ...). What is alive between two layers is held for all of them.
        smoothings: Of the inputs of layers, where those are in INT8.
        on_layer: Told how many tensors are done after each.
    """
    products = roundable(model, layers)
    wanted = [decision for decision in decisions if decision.precision in INTEGERS and decision.layer in products]
    smoothing = {name: item for item in smoothings for name in item.layers}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    of_tensor: dict[str, dict[tuple[object, ...], list[Decision]]] = {}
    for decision in wanted:
        product = products[decision.layer]
        smoothed = smoothing.get(decision.layer) if decision.precision is Precision.INT8 else None
        key = (*product.key, smoothed.tensor if smoothed is not None else None)
        of_tensor.setdefault(product.layer.inputs[0], {}).setdefault(key, []).append(decision)

    place = {name: index for index, node in enumerate(model.graph.node) for name in node.output}
    computed = sorted((name for name in of_tensor if name in place), key=place.__getitem__)
    given = [name for name in of_tensor if name not in place]
    cut, alive = Cut(model, {name: name for name in computed}), [dict(batch) for batch in batches]
    found: dict[tuple[str, Precision], NDArray[np.int8]] = {}
    inputs = [dict(batch) for batch in alive]
    for done, tensor in enumerate((*given, *computed), start=1):
        values = cut.advance(alive, tensor) if tensor in place else [batch[tensor] for batch in inputs]
        for group in of_tensor[tensor].values():
            product = products[group[0].layer]
            smoothed = smoothing.get(group[0].layer) if group[0].precision is Precision.INT8 else None
            factors = [InverseFactor(hessian) for hessian in _hessians(product, values, smoothed)]
            for decision in group:
                layer = products[decision.layer].layer
                weight = np.asarray(numpy_helper.to_array(weights[str(layer.weight)]), dtype=np.float32)
                if smoothed is not None:
                    weight = divided(weight, layer, smoothed.factor)
                found[decision.layer, decision.precision] = _levels(products[decision.layer], factors, weight, decision.precision, scheme)
        on_layer(done)
    return found


def _hessians(product: Product, values: Sequence[Array], smoothing: Smoothing | None) -> NDArray[np.float64]:
    """Return E[x'x] of each group, (groups, inputs, inputs)."""
    total, count = np.zeros(()), 0
    for value in values:
        rows = product.rows(np.asarray(value, dtype=np.float32), MOST_ROWS)
        if smoothing is not None:
            rows = rows * smoothing.factor
        total = total + np.matmul(rows.transpose(0, 2, 1), rows).astype(np.float64)
        count += rows.shape[1]
    return np.asarray(total / max(count, 1))


def _levels(
    product: Product, factors: Sequence[InverseFactor], weight: NDArray[np.float32], precision: Precision, scheme: Scheme
) -> NDArray[np.int8]:
    step = np.broadcast_to(weight_step(weight, product.layer, precision, scheme), weight.shape)
    top = 2 ** (precision.bits - 1) - 1
    bounded = precision is Precision.INT8 and scheme.bounds_pairs and adds_pairs(product.layer, weight.shape)
    pairs = partners(product.layer, weight.shape) if bounded else None
    parts = zip(factors, product.matrices(weight), product.matrices(step), strict=True)
    return product.weight(np.stack([factor.levels(w, s, top, pairs) for factor, w, s in parts]))
