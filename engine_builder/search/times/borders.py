"""What a tensor between layers costs in conversions, by the forms in which its writer and its readers take it (layouts.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine_builder.search.time_model import FLOATS
from engine_builder.search.times.layouts import Layout, Step, steps
from engine_builder.search.times.step_times import StepTimes


@dataclass(frozen=True, slots=True)
class Reader:
    """A layer that reads a tensor."""

    layer: str
    floats: Layout | None  # its form for it while it is float; None: any that holds floats
    integers: Layout | None  # while it is quantized; None: any that holds integers


@dataclass(frozen=True, slots=True)
class Border:
    """A tensor and who takes it in which form."""

    writer: str | None  # the layer that writes it in its own form; None: it is written as floats
    floats: Layout  # the form in which it is written while its writer is float
    integers: Layout  # and quantized
    readers: tuple[Reader, ...]
    others: tuple[Layout | None, ...]  # forms for what reads it and is no layer; None: any that holds floats
    elements: int  # of one timed call

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that it depends on."""
        return tuple(dict.fromkeys((*(() if self.writer is None else (self.writer,)), *(reader.layer for reader in self.readers))))

    def forms(self, is_quantized: Sequence[bool]) -> tuple[Layout, frozenset[Layout]]:
        """Return the form in which it is written, and those in which it is read.

        Args:
            is_quantized: Of each of ``layers``.
        """
        quantized = {layer for layer, is_low in zip(self.layers, is_quantized, strict=True) if is_low}
        written = self.integers if self.writer in quantized else self.floats
        some_floats = min(written, Layout.FLOATS)
        some_integers = max(written, Layout.INTEGERS)
        read = {some_floats if form is None else form for form in self.others}
        for reader in self.readers:
            if reader.layer in quantized:
                read.add(some_integers if reader.integers is None else reader.integers)
            else:
                read.add(some_floats if reader.floats is None else reader.floats)
        return written, frozenset(read)


@dataclass(frozen=True, slots=True)
class BorderTerm:
    """The milliseconds of a border's conversions, those of the baseline engine taken off."""

    border: Border
    step_ms: Mapping[Step, float]  # of one conversion of this tensor

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that it depends on."""
        return self.border.layers

    def milliseconds(self, forms: Sequence[int]) -> float:
        """Return what it adds; see ``time_model.Term``."""
        return sum(self.by_step(forms).values())

    def by_step(self, forms: Sequence[int]) -> dict[Step, float]:
        """Return what each kind of conversion adds.

        Args:
            forms: As for ``milliseconds``.
        """
        found = dict.fromkeys(self.step_ms, 0.0)
        for is_quantized, sign in (([form != FLOATS for form in forms], 1.0), ([False] * len(forms), -1.0)):
            for step in steps(*self.border.forms(is_quantized)):
                found[step] += sign * self.step_ms[step]
        return found

    def scaled(self, factors: Mapping[str, float]) -> BorderTerm:
        """Return the term with each kind of conversion taking so many times as long.

        Args:
            factors: By the name of the step.
        """
        return BorderTerm(self.border, {step: spent * factors[step.value] for step, spent in self.step_ms.items()})


def border_term(border: Border, times: StepTimes) -> BorderTerm:
    """Return the term of a border.

    Args:
        border: The tensor.
        times: What conversions take.
    """
    return BorderTerm(border, {step: times.milliseconds(step, border.elements) for step in Step})
