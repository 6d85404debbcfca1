"""One choice of the search: a layer and a low precision."""

from __future__ import annotations

from dataclasses import dataclass

from calibration.number_formats.precision import Precision


@dataclass(frozen=True, slots=True, order=True)
class LayerPrecision:
    """One layer in one low precision."""

    layer: str
    precision: Precision
