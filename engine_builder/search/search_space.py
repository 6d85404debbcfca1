"""What the layers of an assignment may choose from: precisions, one for each layer, some of them for several layers together.

* A layer has at most one precision below the baseline's. Where layer precisions come one after another, a later one replaces the former.
* The one-format engine of a precision (all-INT8, all-FP8, ...) has every layer in it that can take it; the others take the first
  precision that they can take. It is the same as the engine of that first precision but for the layers at hand, and faster than one that
  leaves them in floats. In that of a precision whose kernels round the others stay floats: its layers read and write floats, and what
  static ones between them save is little beside what they lose.
* The layers of a group take a precision together or none does (an attention's two matmuls): apart they stay at the baseline.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision

WITHOUT_RESIDUAL_ADDS = "products"  # the name of the engine with every layer quantized but the residual adds
BASELINE = "baseline"  # the name of the baseline engine, beside those of the precisions and of the one-format engines
QuantizedLayers = Mapping[str, Precision]  # the quantized layers of an assignment
Groups = Sequence[Sequence[str]]  # names of layers that only pay together


def eligible_from(layer_precisions: Iterable[LayerPrecision]) -> dict[str, tuple[Precision, ...]]:
    """Return the precisions that each layer may take, in the order of the layer precisions."""
    found: dict[str, list[Precision]] = {}
    for layer_precision in layer_precisions:
        found.setdefault(layer_precision.layer, []).append(layer_precision.precision)
    return {layer: tuple(kinds) for layer, kinds in found.items()}


def one_format_engines(eligible: Mapping[str, Sequence[Precision]], precisions: Sequence[Precision]) -> dict[str, dict[str, Precision]]:
    """Return the one-format engine of each precision that a layer can take: ``all_low`` is the first, then ``all_fp8`` and so on.

    Args:
        eligible: The precisions that each layer can take, the target's first choice first.
        precisions: The target's, in its order.
    """
    used = [precision for precision in precisions if any(precision in kinds for kinds in eligible.values())]
    engines: dict[str, dict[str, Precision]] = {}
    for precision in used:
        quantized = {
            layer: precision if precision in kinds else kinds[0]
            for layer, kinds in eligible.items()
            if kinds and (precision in kinds or not precision.rounds_in_kernel)
        }
        if quantized not in engines.values():
            engines["all_low" if precision is used[0] else f"all_{precision}"] = quantized
    return engines


def engine_without_residual_adds(one_format: Mapping[str, QuantizedLayers], residual_adds: Collection[str]) -> dict[str, Precision]:
    """Return the first one-format engine with its residual adds at the baseline; empty where that is no other engine.

    Residual adds of a transformer may lose more than all of its matmuls together, and compute next to nothing; the layers that multiply,
    all of them quantized, are what one would build by hand.

    Args:
        one_format: The one-format engines, in their order.
        residual_adds: Names of the residual adds.
    """
    first = next(iter(one_format.values()), {})
    without_residual_adds = {layer: precision for layer, precision in first.items() if layer not in residual_adds}
    return without_residual_adds if len(without_residual_adds) < len(first) else {}


def is_one_format(order: str) -> bool:
    """Return whether a trial's ``order`` is the name of a one-format engine."""
    return order.startswith("all_")


def units(layers: Iterable[str], groups: Groups) -> tuple[tuple[str, ...], ...]:
    """Return the layers that are chosen for together: groups, those that share a layer joined, and every other layer by itself."""
    unit: dict[str, tuple[str, ...]] = {layer: (layer,) for layer in layers}
    for group in groups:
        joined = tuple(dict.fromkeys(member for layer in group for member in unit.get(layer, (layer,))))
        unit.update(dict.fromkeys(joined, joined))
    return tuple(dict.fromkeys(unit.values()))


def choices_of(unit: Sequence[str], eligible: Mapping[str, Sequence[Precision]]) -> tuple[Precision, ...]:
    """Return the precisions that all layers of a unit can take, in the order of the first one's."""
    return tuple(precision for precision in eligible.get(unit[0], ()) if all(precision in eligible.get(layer, ()) for layer in unit))


def legalized(quantized: QuantizedLayers, groups: Groups) -> dict[str, Precision]:
    """Return the assignment with every group that is not of one precision left at the baseline, as the engine would have it."""
    apart = {layer for unit in units(quantized, groups) if len({quantized.get(layer) for layer in unit}) > 1 for layer in unit}
    return {layer: precision for layer, precision in quantized.items() if layer not in apart}
