"""What is known of one number format: a row of the table ``calibration.number_formats.precision.Precision``."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

FEW_BITS = 4


class Grid(Protocol):
    """How values round to a format (``calibration.number_formats.grids``). Arrays have any shape and are float32."""

    @property
    def storage(self) -> np.dtype[np.generic]:
        """Of an array that holds values of the format: levels where it is scaled."""

    @property
    def is_scaled(self) -> bool:
        """Whether values are stored as levels times a scale; else they are cast."""

    @property
    def is_integer(self) -> bool:
        """Whether levels are integers."""

    @property
    def top(self) -> float:
        """The largest level of a symmetric grid; the largest value of a format without scales."""

    @property
    def bottom(self) -> float:
        """The lowest level that a weight may take: -top, or one less where the grid uses all of its levels."""

    def activation(self, low: float, high: float, *, symmetric: bool) -> tuple[np.float32, NDArray[np.generic]]:
        """Return the scale of a tensor in the range [low, high] and its zero point, 0-d in the type that is stored.

        Raises:
            TypeError: The format has no scales.
        """

    def round_activation(self, x: NDArray[np.float32], low: float, high: float, *, symmetric: bool) -> NDArray[np.float32]:
        """Return ``x`` after a round trip through the grid of the range [low, high]."""

    def round_weight(self, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``weight`` after a round trip with one scale in all, if any; the step of integers is another's to choose."""


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """One number format."""

    name: str  # as users write it
    bits: int  # of a stored value
    element_type: int  # of ``onnx.TensorProto``, of what is stored
    grid: Grid
    colour: str  # in the report, #rrggbb
    rounds_inputs: bool = False  # whether a layer's inputs are stored in it too, behind a Q/DQ pair
    is_dynamic: bool = False  # whether a layer's own kernel rounds its inputs, with the range that they have in the call
    rounds_blocks: bool = False  # whether a layer's own kernel rounds its inputs, each row in blocks, as its weights are
    weight_block: int | None = None  # weights with one scale along the reduction axis, where target or kernel has blocks; None: no blocks
    least_opset: int = 13  # of a typed graph that stores it
    least_compute_capability: tuple[int, int] | None = None  # of a GPU that has it; None: every one that is built for


class FormatTable(enum.StrEnum):
    """A literal table of number formats, each member a row: a format is added by the file of its grid, where that is new, and one row."""

    _value_: str
    row: NumberFormat

    def __new__(cls, row: NumberFormat | str) -> Self:
        """Make the member of a row, whose value is the row's name; a look-up by name does not come here."""
        if isinstance(row, str):
            raise TypeError(f"found {row!r}, expected a NumberFormat")
        member = str.__new__(cls, row.name)
        member._value_ = row.name
        member.row = row
        return member

    @property
    def bits(self) -> int:
        """Bits per stored value."""
        return self.row.bits

    @property
    def grid(self) -> Grid:
        """How values round to it."""
        return self.row.grid

    @property
    def element_type(self) -> int:
        """The element type of ``onnx.TensorProto`` that is stored."""
        return self.row.element_type

    @property
    def colour(self) -> str:
        """In the report, #rrggbb."""
        return self.row.colour

    @property
    def is_quantized(self) -> bool:
        """Whether values are levels times a scale; else it is a float type that whole graphs are computed in."""
        return self.row.grid.is_scaled

    @property
    def is_integer(self) -> bool:
        """Whether weights are stored as integers."""
        return self.row.grid.is_integer

    @property
    def rounds_inputs(self) -> bool:
        """Whether the inputs of a layer are stored in it too, behind a Q/DQ pair, with a range that was measured before."""
        return self.row.rounds_inputs

    @property
    def is_dynamic(self) -> bool:
        """Whether a layer's own kernel rounds its inputs, with the range that they have in the call: all that is stored are floats."""
        return self.row.is_dynamic

    @property
    def rounds_blocks(self) -> bool:
        """Whether a layer's own kernel rounds its inputs, each row in blocks, as its weights are: all that is stored are floats."""
        return self.row.rounds_blocks

    @property
    def rounds_in_kernel(self) -> bool:
        """Whether a layer's own kernel rounds its inputs in either way, and what it reads and writes stays in floats."""
        return self.row.is_dynamic or self.row.rounds_blocks

    @property
    def is_weight_only(self) -> bool:
        """Whether weights alone are stored in it, and a kernel widens them."""
        return self.is_quantized and not self.row.rounds_inputs and not self.rounds_in_kernel

    @property
    def multiplies_integers(self) -> bool:
        """Whether kernels multiply integers by integers in it."""
        return self.is_integer and (self.row.rounds_inputs or self.rounds_in_kernel)

    @property
    def has_few_bits(self) -> bool:
        """Whether the nearest levels of weights lose so much that others are worth a search."""
        return self.bits <= FEW_BITS

    @property
    def may_saturate(self) -> bool:
        """Whether its kernels add pairs of products in 16 bits on some processors (``calibration.number_formats.pair_bound``)."""
        return self.multiplies_integers and not self.row.rounds_blocks

    @property
    def takes_smooth_quant(self) -> bool:
        """Whether SmoothQuant may multiply a layer's inputs by factors: they are rounded to integers on a grid that was chosen before."""
        return self.is_integer and self.row.rounds_inputs

    @property
    def weight_block(self) -> int | None:
        """Weights with one scale along the reduction axis, where target or kernel has blocks; None: no blocks."""
        return self.row.weight_block

    @property
    def least_opset(self) -> int:
        """Of a typed graph that stores it."""
        return self.row.least_opset

    def runs_on(self, compute_capability: tuple[int, int] | None) -> bool:
        """Return whether a GPU of that compute capability has it; where that is not known (None), it is taken to.

        Formats whose kernels round are for processors alone.
        """
        least = self.row.least_compute_capability
        if self.rounds_in_kernel:
            return False
        return compute_capability is None or least is None or compute_capability >= least
