"""What the layers of an assignment may choose from: precisions, one for each layer, some of them for several layers together.

* A layer has at most one precision below the baseline's. Where decisions come one after another, a later one replaces the former.
* The uniform engine of a precision has every layer in it that can take it; the others take the first precision that they can take. It is
  the same as the engine of that first precision but for the layers at hand, and faster than one that leaves them in floats.
* The layers of a group take a precision together or none does (an attention's two products): apart they stay at the baseline.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from calibration.number_formats.layer_precision import Decision
from calibration.number_formats.precision import Precision

PRODUCTS = "products"  # the name of the engine with every product low
BASELINE = "baseline"  # the name of the baseline engine, beside those of the precisions and of the uniform engines
Low = Mapping[str, Precision]  # the low layers of an assignment
Groups = Sequence[Sequence[str]]  # names of layers that only pay together


def able_from(decisions: Iterable[Decision]) -> dict[str, tuple[Precision, ...]]:
    """Return the precisions that each layer may take, in the order of the decisions."""
    found: dict[str, list[Precision]] = {}
    for decision in decisions:
        found.setdefault(decision.layer, []).append(decision.precision)
    return {layer: tuple(kinds) for layer, kinds in found.items()}


def uniform_engines(able: Mapping[str, Sequence[Precision]], precisions: Sequence[Precision]) -> dict[str, dict[str, Precision]]:
    """Return the uniform engine of each precision that a layer can take: ``all_low`` is that of the first, then ``all_fp8`` and so on.

    Args:
        able: The precisions that each layer can take, the target's first choice first.
        precisions: The target's, in its order.
    """
    used = [precision for precision in precisions if any(precision in kinds for kinds in able.values())]
    engines: dict[str, dict[str, Precision]] = {}
    for precision in used:
        low = {layer: precision if precision in kinds else kinds[0] for layer, kinds in able.items() if kinds}
        if low not in engines.values():
            engines["all_low" if precision is used[0] else f"all_{precision}"] = low
    return engines


def products_engine(uniform: Mapping[str, Low], sums: Collection[str]) -> dict[str, Precision]:
    """Return the first uniform engine with its residual sums at the baseline; empty where that is no other engine.

    Sums on the residual stream of a transformer may lose more than all of its products together, and compute next to nothing; the layers
    that multiply, all of them low, are what one would build by hand.

    Args:
        uniform: The uniform engines, in their order.
        sums: Names of the residual sums.
    """
    first = next(iter(uniform.values()), {})
    products = {layer: precision for layer, precision in first.items() if layer not in sums}
    return products if len(products) < len(first) else {}


def is_uniform(order: str) -> bool:
    """Return whether a trial's ``order`` is the name of a uniform engine."""
    return order.startswith("all_")


def units(layers: Iterable[str], groups: Groups) -> tuple[tuple[str, ...], ...]:
    """Return the layers that are chosen for together: groups, those that share a layer joined, and every other layer by itself."""
    unit: dict[str, tuple[str, ...]] = {layer: (layer,) for layer in layers}
    for group in groups:
        joined = tuple(dict.fromkeys(member for layer in group for member in unit.get(layer, (layer,))))
        unit.update(dict.fromkeys(joined, joined))
    return tuple(dict.fromkeys(unit.values()))


def choices_of(unit: Sequence[str], able: Mapping[str, Sequence[Precision]]) -> tuple[Precision, ...]:
    """Return the precisions that all layers of a unit can take, in the order of the first one's."""
    return tuple(precision for precision in able.get(unit[0], ()) if all(precision in able.get(layer, ()) for layer in unit))


def settled(low: Low, groups: Groups) -> dict[str, Precision]:
    """Return the assignment with every group that is not of one precision left at the baseline, as the engine would have it."""
    apart = {layer for unit in units(low, groups) if len({low.get(layer) for layer in unit}) > 1 for layer in unit}
    return {layer: precision for layer, precision in low.items() if layer not in apart}
