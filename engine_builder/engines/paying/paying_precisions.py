"""Which of the precisions whose kernels round are worth an engine: told by the times of their kernels, before any engine is built.

They are ordered by what they lose: blocks of 8 bits least, then 8 bits with one range for a call, then blocks of 4 bits. So

1. blocks of 8 bits are left out where they take longer than float products by ``MOST_EXCESS``: less is no reason, since their engines
   save the sums of biases too;
2. blocks of 4 bits must save ``LEAST_SAVING`` of what the fastest other form takes, float products included;
3. dynamic integers are left out where blocks of 8 bits are as fast: they lose more;
4. blocks of 8 bits that are slower than dynamic integers, and so than static ones, which are as fast, are a *last resort*: an engine of
   them is tried only where faster ones miss the budget.

What is timed are the model's products alone, at the rows of a timed call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from calibration.graph.layers import Layer
from calibration.number_formats.precision import Precision
from engine_builder.backends.onnxruntime.product_times import ProductShape, Shapes, Times
from engine_builder.records.calibrated import EligiblePrecisions

LEAST_SAVING, MOST_EXCESS = 0.1, 0.1


@dataclass(frozen=True, slots=True)
class Paying:
    """What is left of the eligible precisions."""

    eligible: EligiblePrecisions
    last_resorts: tuple[Precision, ...] = ()  # for engines only where faster ones miss the budget


def paying_precisions(
    layers: Sequence[Layer],
    weights: Mapping[str, Sequence[int]],
    eligible: EligiblePrecisions,
    measure: Callable[[Shapes], Times],
    *,
    samples: int,
) -> Paying:
    """Return the eligible precisions without those whose kernels do not pay; nothing is measured where no layer may be in blocks.

    Args:
        layers: The model's.
        weights: Sizes of their weights, by name.
        eligible: What each can take.
        measure: Times products in every form.
        samples: In a timed call.
    """
    in_blocks = [layer for layer in layers if any(one.rounds_blocks for one in eligible.get(layer.name, ()))]
    shapes = product_shapes(in_blocks, weights, samples)
    if not shapes:
        return Paying(eligible)
    left_out, last_resorts = judged(measure(shapes))
    kept = {layer: tuple(one for one in kinds if one not in left_out) for layer, kinds in eligible.items()}
    return Paying({layer: kinds for layer, kinds in kept.items() if kinds}, last_resorts)


def judged(spent: Times) -> tuple[frozenset[Precision], tuple[Precision, ...]]:
    """Return the precisions that are left out, and the last resorts among the others.

    Args:
        spent: Milliseconds of the model's products in each form.
    """
    floats, dynamic = spent[Precision.FP32], spent[Precision.INT8_DYNAMIC]
    eight, four = spent[Precision.INT8_WEIGHTS], spent[Precision.INT4_WEIGHTS]
    left_out = set()
    if eight > (1.0 + MOST_EXCESS) * floats:
        left_out.add(Precision.INT8_WEIGHTS)
    elif eight <= dynamic:
        left_out.add(Precision.INT8_DYNAMIC)
    if four > (1.0 - LEAST_SAVING) * min(floats, dynamic, eight):
        left_out.add(Precision.INT4_WEIGHTS)
    is_last = Precision.INT8_WEIGHTS not in left_out and eight > dynamic
    return frozenset(left_out), (Precision.INT8_WEIGHTS,) if is_last else ()


def product_shapes(layers: Sequence[Layer], weights: Mapping[str, Sequence[int]], samples: int) -> Shapes:
    """Return the shapes of products with a constant matrix, and how many layers have each.

    Args:
        layers: Matrix products, each with a weight of two axes.
        weights: Their sizes, by name.
        samples: In a call.
    """
    counts: dict[ProductShape, int] = {}
    for layer in layers:
        axis = layer.weight_axis or 0
        sizes = weights[str(layer.weight)]
        rows = max(round(layer.macs / layer.weight_count), 1) * samples
        shape = ProductShape(rows, sizes[1 - axis], sizes[axis])
        counts[shape] = counts.get(shape, 0) + 1
    return counts
