"""What is judged of an output: its parts, each of a kind and with the spread that it has over the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures.detection.heads import Head
from calibration.accuracy.measures.options import BoxFormat
from calibration.accuracy.measures.sample_blocks import sample_slices
from calibration.accuracy.metrics import CLASSES, OutputKind

Array = NDArray[np.generic]
Doubles = NDArray[np.float64]
Booleans = NDArray[np.bool_]

FEW = 16  # columns that are judged one by one; of more the mean counts, so that a dead one among hundreds does not decide
LEAST_UNIT = 1e-4  # of the largest spread of a column, that a column is taken to have at least
ROUNDING = 1e-5  # of a column's own values: a column that moves less is constant up to float32's rounding through a network
LEAST_OF_LEVEL = 1e-3  # of the root mean square: the least spread of values that are next to constant over the data


def as_doubles(values: Array) -> Doubles:
    """Return values in float64, without a copy where they are."""
    return np.asarray(values, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an output, read as a kind. An output that may be of two kinds has a part for each."""

    kind: OutputKind
    axis: int | None = None  # of the classes or columns, samples first: at least 1; None: the last, and nothing is told by columns
    places: tuple[int, ...] = ()  # on that axis; none: all of it
    units: tuple[float, ...] = ()  # spread of each place over the data, or of all; none: each sample's own norm
    judges_change: bool = False  # of classes: the change of the probabilities counts too, since agreement hardly can fail
    beside: tuple[int, ...] = ()  # of detections in a loss: outputs whose columns stand behind its own, by their places in the model

    def of(self, values: Array) -> Array:
        """Return the part's own values, (samples, ...), of the output's."""
        return values if not self.places or self.axis is None else np.take(values, self.places, axis=self.axis)

    def spread(self, values: Array) -> Doubles:
        """Return ``spread_of`` the part's own values, of the output's, (samples, ...)."""
        return spread_of(values, self.in_columns)

    def in_columns(self, values: Array) -> Doubles:
        """Return the part's own values as (samples, all the rest, columns); without an axis there is one column."""
        own = np.asarray(self.of(values), dtype=np.float64)
        if self.axis is None:
            return own.reshape(len(own), -1, 1)
        last = np.moveaxis(own, self.axis, -1)
        return last.reshape(len(own), -1, last.shape[-1])


@dataclass(frozen=True, slots=True)
class JointRows:
    """Outputs of which row k is detection k, in an order that the graph chose."""

    names: tuple[str, ...]  # of the outputs, in the order in which ``head`` counts them
    head: Head
    forms: tuple[BoxFormat, ...] = ()  # that the boxes may have; none: they are compared column by column
    count: str | None = None  # the output that says how many rows hold something
    others: tuple[str, ...] = ()  # further outputs of the same rows

    @property
    def members(self) -> tuple[str, ...]:
        """The names of all."""
        return (*self.names, *(() if self.count is None else (self.count,)), *self.others)


@dataclass(frozen=True, slots=True)
class JudgedOutput:
    """How one output is judged: the worst of its parts counts."""

    name: str
    kinds: tuple[OutputKind, ...]  # what it may be; one where the evidence settles it
    parts: tuple[Part, ...]
    why: str  # in words that follow the kinds
    is_certain: bool = True  # nothing else fits, or the user says so
    is_single: bool = False  # one value a sample
    decisions: int = 1  # of a sample, where it holds classes
    words: str = ""  # of the measures, for people
    together: JointRows | None = None  # the outputs that it is judged with, as one

    @property
    def sentence(self) -> str:
        """A line for the terminal: name, kinds, why, and the key that changes it."""
        kinds = " or ".join(self.kinds) if not self.is_mixed else " beside ".join(self.kinds)
        both = ": both must keep the budget" if len(self.kinds) == 2 and not self.is_mixed else ""
        both = ": all must keep the budget" if len(self.kinds) > 2 and not self.is_mixed else both
        other = "" if self.is_said else f"; {self.key} says otherwise"
        return f"output '{self.name}' is taken for {kinds} ({self.why}){both}{other}"

    @property
    def key(self) -> str:
        """The part of the configuration that says what it holds."""
        return f'outputs: {{"{self.name}": KIND}}'

    @property
    def is_mixed(self) -> bool:
        """Whether the kinds are those of different places of the output."""
        return len(self.kinds) > 1 and all(part.places for part in self.parts)

    @property
    def is_said(self) -> bool:
        """Whether the kind is the user's word."""
        return self.why == SAID

    @property
    def is_one_score(self) -> bool:
        """Whether the output is one score in 0..1 a sample, of which closeness says all."""
        return self.kinds == (OutputKind.SCORES,) and self.is_single

    @property
    def is_plain(self) -> bool:
        """Whether the output is of one piece, read in one way, that the loss of the kind alone fits."""
        if len(self.parts) != 1 or self.parts[0].units or self.parts[0].judges_change:
            return False
        return self.parts[0].kind in PLAIN and (self.parts[0].axis is None or self.parts[0].kind not in CLASSES)


SAID = "as outputs says"
PLAIN = frozenset({OutputKind.LOGITS, OutputKind.PROBABILITIES, OutputKind.LABELS, OutputKind.VALUES, OutputKind.EMBEDDING})


def spread_of(values: Array, columns: Callable[[Array], Doubles] = as_doubles) -> Doubles:
    """Return the root mean square distance of each column from its mean over the data, (columns,), above 0.

    The mean is of each place over the samples where there are several: what is alike in all samples says nothing of an engine.
    A column that is constant up to rounding has its own size as unit: an engine that computes it in another order is not blamed.

    Args:
        values: (samples, ...), the float model's.
        columns: Returns some samples as (samples, all the rest, columns), which ``values`` are by default.
    """
    total, count = np.zeros(()), 0
    for part in sample_slices(values):
        known = _finite_or_zero(columns(values[part]))
        total, count = total + known.sum(axis=0), count + len(known)
    mean = total / count
    apart, square, rows = np.zeros(()), np.zeros(()), 0
    for part in sample_slices(values):
        known = _finite_or_zero(columns(values[part]))
        apart = apart + ((known - mean) ** 2).sum(axis=(0, 1))
        square = square + (known**2).sum(axis=(0, 1))
        rows += known.shape[0] * known.shape[1]
    spread, own = np.sqrt(apart / rows), np.sqrt(square / rows)
    level = np.where(spread <= ROUNDING * own, own, LEAST_OF_LEVEL * own)
    largest = float(spread.max(initial=0.0))
    return np.asarray(np.maximum(np.maximum(spread, level), LEAST_UNIT * largest if largest > 0 else 1.0), dtype=np.float64)


def _finite_or_zero(columns: Doubles) -> Doubles:
    return columns if np.isfinite(columns).all() else np.where(np.isfinite(columns), columns, 0.0)
