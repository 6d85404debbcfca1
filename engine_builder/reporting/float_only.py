"""Which layers stay float, in words: they read or write values that no grid holds or never any, or are predicted to be slower otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from calibration.graph.layers import Layer
from calibration.number_formats.precision import Precision
from calibration.ranges.range_table import RangeTable
from engine_builder.backends.base import Capabilities
from engine_builder.records.calibrated import Calibrated, EligiblePrecisions

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


def low_precision_notes(layers: Iterable[Layer], calibrated: Calibrated, target: Capabilities) -> tuple[str, ...]:
    """Return what low precisions cost on this target beside their kernels, and which layers were left out for it.

    Args:
        layers: The model's.
        calibrated: What each can take.
        target: What engines are built for.
    """
    could, slower = calibrated.eligible, calibrated.slower
    operators = {one.op_type for one in layers if Precision.INT8 in (*could.get(one.name, ()), *slower.get(one.name, ()))}
    return (*(said for operator, said in target.int8_costs.items() if operator in operators), *slower_note(slower))


def slower_note(slower: EligiblePrecisions) -> tuple[str, ...]:
    """Return what to tell the reader of a report, nothing where every layer was offered what it can take.

    Args:
        slower: What each layer could take and was not offered.
    """
    counts = Counter(precision for kinds in slower.values() for precision in kinds)
    if not counts:
        return ()
    each = " and ".join(f"{count} in {precision}" for precision, count in sorted(counts.items()))
    return (
        "convolutions that were left out before anything was built, since they are predicted to be slower than at the baseline's "
        f"precision: {each}; name `precisions` in the configuration to have them tried all the same",
    )
