"""The values of an input that sets sizes of tensors: a builder has to know them before it builds."""

from __future__ import annotations

from dataclasses import dataclass

MOST_VALUES = 64  # of such an input, in TensorRT


@dataclass(frozen=True, slots=True)
class ValueRange:
    """Least, timed and greatest of each value of one input, in its order; the engine accepts what lies between."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse ranges whose parts do not fit together."""
        if not len(self.min) == len(self.opt) == len(self.max):
            raise ValueError(f"found {self}, expected equally many values in each")
        if any(not low <= opt <= high for low, opt, high in zip(self.min, self.opt, self.max, strict=True)):
            raise ValueError(f"found {self}, expected min <= opt <= max of each value")
