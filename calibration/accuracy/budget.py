"""An accuracy budget: how much a user allows an engine to lose.

A budget of scores (1 is perfect) is met where metric(engine) >= r * metric(baseline) - d for the numbers r and d of its ``claim``:

1. a share to keep, ``min_relative``: r is the share, d is 0;
2. an absolute drop, ``max_drop``: r is 1, d is the drop;
3. a least score, ``min_score``: r is 0, d is less the score.

The others are budgets of an error or of decibels, met where the mean over all data is inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.metrics import BudgetKey


@dataclass(frozen=True, slots=True)
class Claim:
    """What is claimed of an engine's score: that it is at least ``ratio`` times the baseline's, less ``drop``."""

    ratio: float  # 0-1
    drop: float = 0.0


@dataclass(frozen=True, slots=True)
class Budget:
    """How much accuracy may be lost: exactly one of these is given."""

    min_relative: float | None = None  # share of the baseline's score to keep, 0-1
    max_drop: float | None = None  # largest drop of the score, 0-1
    min_score: float | None = None  # least score, 0-1
    max_nmse: float | None = None  # largest mean NMSE
    max_kl: float | None = None  # largest mean divergence, nats
    min_psnr: float | None = None  # least mean PSNR, decibels
    min_si_snr: float | None = None  # least mean SI-SNR, decibels

    def __post_init__(self) -> None:
        """Refuse anything but one budget."""
        if sum(getattr(self, key) is not None for key in BudgetKey) != 1:
            raise ValueError(f"expected exactly one of {', '.join(BudgetKey)}, found {self}")
        for name in (BudgetKey.MIN_RELATIVE, BudgetKey.MAX_DROP, BudgetKey.MIN_SCORE):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must be within 0..1, found {value}")

    @property
    def claim(self) -> Claim | None:
        """The budget as a claim about scores; None of an error or of decibels."""
        if self.min_relative is not None:
            return Claim(self.min_relative)
        if self.max_drop is not None:
            return Claim(1.0, self.max_drop)
        return None if self.min_score is None else Claim(0.0, -self.min_score)

    @property
    def _largest_error(self) -> float | None:
        return self.max_kl if self.max_nmse is None else self.max_nmse

    @property
    def _least_decibels(self) -> float:
        least = self.min_si_snr if self.min_psnr is None else self.min_psnr
        assert least is not None  # __post_init__ left no other case
        return least

    def margins(self, baseline: NDArray[np.float64], engine: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what each sample adds to theta, (samples,): the budget is met where the mean is at least 0."""
        if self.min_relative is not None:
            return engine - self.min_relative * baseline
        if self.max_drop is not None:
            return engine - baseline + self.max_drop
        if self.min_score is not None:
            return engine - self.min_score
        if (largest := self._largest_error) is not None:
            return largest - engine
        return engine - self._least_decibels

    def largest_drop(self, baseline: float) -> float:
        """Return the drop from the mean score ``baseline`` that is just allowed."""
        if self.min_relative is not None:
            return (1 - self.min_relative) * baseline
        if self.max_drop is not None:
            return self.max_drop
        if self.min_score is not None:
            return baseline - self.min_score
        if (largest := self._largest_error) is not None:
            return largest - baseline
        return baseline - self._least_decibels
