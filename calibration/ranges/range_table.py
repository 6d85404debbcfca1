"""The ranges of a model's tensors, and how they were chosen."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from calibration.errors import InvalidCalibrationSetError
from calibration.nonfinite import Special


class RangeMethod(enum.StrEnum):
    """How a range is chosen from the values seen."""

    AUTO = "auto"  # min-max; where engines miss the budget, the method with which a whole network is measured to be least noisy
    MINMAX = "minmax"  # every value seen fits: the safe choice, also for transformers
    PERCENTILE = "percentile"  # the 99.999th percentile of magnitudes
    ENTROPY = "entropy"  # least Kullback-Leibler divergence between the histogram and its 8-bit version
    MSE = "mse"  # least mean squared error of the 8-bit grid
    BEST = "best"  # tensor by tensor the one with the least measured loss; min-max unless another is better beyond the noise


CLIPPING = (RangeMethod.PERCENTILE, RangeMethod.ENTROPY, RangeMethod.MSE)  # that leave out values


@dataclass(frozen=True, slots=True)
class RangeTable:
    """Range of each tensor by name: low <= 0 <= high is not required, low <= high and finiteness are.

    A range is that of the finite values; a tensor without any has none.
    """

    ranges: Mapping[str, tuple[float, float]]
    method: RangeMethod
    samples: int  # calibration samples that were seen
    specials: Mapping[str, tuple[Special, ...]] = field(default_factory=dict)  # what some tensors hold that no grid holds beside the rest
    empty: tuple[str, ...] = ()  # tensors of layers that had no element on any sample

    def __post_init__(self) -> None:
        """Check every range."""
        for name, (low, high) in self.ranges.items():
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise InvalidCalibrationSetError(
                    f"Tensor {name!r} takes the values {low} to {high} on the calibration set; a finite range is needed.",
                    fix="Check the calibration samples: with these inputs the float model itself overflows or gives NaN.",
                )

    def can_round(self, tensors: Iterable[str]) -> bool:
        """Return whether all of the tensors, inputs and outputs of layers, can be rounded to a grid."""
        return all(name in self.ranges and name not in self.specials for name in tensors)
