"""What a kernel takes by whether the layers around it are quantized: read off engines, interpolated where no engine had it so."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from engine_builder.search.time_model import FLOATS

Corner = tuple[bool, bool]  # whether the layers above are quantized, and those below


@dataclass(frozen=True, slots=True)
class SiteTerm:
    """The milliseconds of a kernel that is no layer's, those of the baseline engine taken off.

    ``corners`` has what it takes where all layers above, and all below, are quantized or none: what was never seen is the mean of the two
    engines that have all or no layer quantized. In between it is bilinear in the shares of quantized layers.
    """

    above: tuple[str, ...]
    below: tuple[str, ...]
    corners: Mapping[Corner, float]

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that it depends on."""
        return tuple(dict.fromkeys((*self.above, *self.below)))

    def milliseconds(self, forms: Sequence[int]) -> float:
        """Return what it adds; see ``time_model.Term``."""
        quantized = {layer for layer, form in zip(self.layers, forms, strict=True) if form != FLOATS}
        above, below = corner_shares(self.above, self.below, quantized)
        none, every = self.corners.get((False, False), 0.0), self.corners.get((True, True), 0.0)
        unseen = (none + every) / 2.0
        enter, leave = self.corners.get((False, True), unseen), self.corners.get((True, False), unseen)
        spent = none * (1 - above) * (1 - below) + enter * (1 - above) * below + leave * above * (1 - below) + every * above * below
        return spent - none

    def scaled(self, factor: float) -> SiteTerm:
        """Return the term with all that it adds taken so many times."""
        return replace(self, corners={corner: spent * factor for corner, spent in self.corners.items()})


@dataclass(frozen=True, slots=True)
class NeighbourTerm:
    """What a layer's own kernel takes longer between layers that are not as it is, in proportion to how many of them are not."""

    layer: str
    neighbours: tuple[str, ...]
    float_ms: float  # longer than in the baseline engine, with all neighbours quantized
    quantized_ms: float  # longer than in the one-format engine, with all neighbours float

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that it depends on."""
        return (self.layer, *self.neighbours)

    def milliseconds(self, forms: Sequence[int]) -> float:
        """Return what it adds; see ``time_model.Term``."""
        share = sum(form != FLOATS for form in forms[1:]) / len(self.neighbours)
        return self.quantized_ms * (1.0 - share) if forms[0] != FLOATS else self.float_ms * share

    def scaled(self, factor: float) -> NeighbourTerm:
        """Return the term with all that it adds taken so many times."""
        return replace(self, float_ms=self.float_ms * factor, quantized_ms=self.quantized_ms * factor)


def corner_shares(above: Sequence[str], below: Sequence[str], quantized: Collection[str]) -> tuple[float, float]:
    """Return the shares of the layers above and below that are quantized; where there are none on one side, those of the other.

    Args:
        above: The layers above.
        below: Those below.
        quantized: The quantized layers.
    """
    shares = [sum(layer in quantized for layer in layers) / len(layers) if layers else None for layers in (above, below)]
    first, second = shares
    up, down = (second if first is None else first), (first if second is None else second)
    return up or 0.0, down or 0.0
