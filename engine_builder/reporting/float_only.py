"""Which layers stay float because of what they read or write, in words: values that no grid holds, or never any value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from calibration.graph.layers import Layer
from calibration.ranges.range_table import RangeTable

_NAMED = 8  # layers that a note names


def float_only(layers: Iterable[Layer], table: RangeTable) -> dict[str, str]:
    """Return why each layer that must stay float does, by layer, in the order of the layers.

    Args:
        layers: The model's.
        table: What their tensors held on the calibration samples.
    """
    reasons: dict[str, str] = {}
    for layer in layers:
        read = (*layer.inputs, *(name for name in (layer.weight, layer.bias) if name is not None))
        for name, does in (*((name, "reads") for name in read), (layer.output, "writes")):
            if name in table.specials:
                reasons.setdefault(layer.name, f"{does} '{name}', which holds {' and '.join(table.specials[name])}")
            elif name in table.empty:
                reasons.setdefault(layer.name, f"{does} '{name}', which is empty on every calibration sample")
    return reasons


def float_only_note(reasons: Mapping[str, str]) -> tuple[str, ...]:
    """Return what to tell the reader of a report, nothing where no layer stays float for such a reason.

    Args:
        reasons: As ``float_only`` returns them.
    """
    if not reasons:
        return ()
    named = [f"'{layer}' {reason}" for layer, reason in list(reasons.items())[:_NAMED]]
    more = f"; and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
    stay = "1 layer stays float because of what it reads or writes"
    if len(reasons) > 1:
        stay = f"{len(reasons)} layers stay float because of what they read or write"
    return (f"{stay}: {'; '.join(named)}{more}",)
