"""The ranges of a model's tensors, and how they were chosen."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass

from calibration.errors import InvalidCalibrationSetError


class RangeMethod(enum.StrEnum):
    """How a range is chosen from the values seen."""

    MINMAX = "minmax"  # every value seen fits: the safe choice, also for transformers
    PERCENTILE = "percentile"  # the 99.999th percentile of magnitudes
    ENTROPY = "entropy"  # least Kullback-Leibler divergence between the histogram and its 8-bit version
    MSE = "mse"  # least mean squared error of the 8-bit grid
    BEST = "best"  # tensor by tensor the one with the least measured loss; min-max unless another is better beyond the noise


@dataclass(frozen=True, slots=True)
class RangeTable:
    """Range of each tensor by name: low <= 0 <= high is not required, low <= high and finiteness are."""

    ranges: Mapping[str, tuple[float, float]]
    method: RangeMethod
    samples: int  # calibration samples that were seen

    def __post_init__(self) -> None:
        """Check every range."""
        for name, (low, high) in self.ranges.items():
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise InvalidCalibrationSetError(
                    f"Tensor {name!r} takes the values {low} to {high} on the calibration set; a finite range is needed.",
                    fix="Check the calibration samples: with these inputs the float model itself overflows or gives NaN.",
                )
