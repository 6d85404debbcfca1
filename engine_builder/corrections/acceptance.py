"""What a correction gained on samples that it was not fitted to, and whether that is more than noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STANDARD_ERRORS = 2.0  # by which a correction must lower the loss
CLEARLY_BETTER, CLEARLY_WORSE = 3.0, 1.0  # standard errors, where more samples could still be looked at
FEWEST_SAMPLES = 16  # that a standard error can be trusted from, for what is kept


@dataclass(frozen=True, slots=True)
class Gain:
    """The mean loss before and after a correction, over the same samples."""

    before: float
    after: float
    error: float  # standard error of the difference
    samples: int

    @property
    def is_clear(self) -> bool:
        """Whether few samples say enough: the loss rose by more than one standard error, or fell, on not too few, by more than three."""
        is_better = self.samples >= FEWEST_SAMPLES and self.before - self.after > CLEARLY_BETTER * self.error
        return is_better or self.after - self.before > CLEARLY_WORSE * self.error

    @property
    def beyond_noise(self) -> bool:
        """Whether the loss fell by more than two standard errors."""
        return self.before - self.after > STANDARD_ERRORS * self.error

    @property
    def loss_beyond_noise(self) -> bool:
        """Whether the loss rose by more than two standard errors."""
        return self.after - self.before > STANDARD_ERRORS * self.error


def gain_of(before: NDArray[np.float64], after: NDArray[np.float64]) -> Gain:
    """Return the gain from the losses of each sample, (samples,) each."""
    gain = before - after
    error = float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else float(abs(gain[0]))
    return Gain(float(before.mean()), float(after.mean()), error, len(gain))
