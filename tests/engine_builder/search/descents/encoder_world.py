"""A text encoder whose layers choose among several precisions, and the descent that tries every move from the models themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.search.descents.descent import ROUNDING, SMALLEST_GAIN, Move
from engine_builder.search.loss_model import predicted_loss
from engine_builder.search.search_space import Groups, QuantizedLayers
from engine_builder.search.time_model import TensorEdge, Term, TimeModel
from engine_builder.search.times.borders import Border, Reader, border_term
from engine_builder.search.times.kernel_sites import NeighbourTerm, SiteTerm
from engine_builder.search.times.layouts import Layout, Step
from engine_builder.search.times.step_times import StepTimes

PRODUCTS = (Precision.INT8, Precision.INT8_DYNAMIC)
PRECISIONS = (*PRODUCTS, Precision.INT8_WEIGHTS, Precision.INT4_WEIGHTS)
PARTS = ("query", "key", "value", "scores", "context", "out", "up", "down")  # the layers of a block
TENSORS = ((0, 3), (1, 3), (3, 4), (2, 4), (4, 5), (5, 6), (6, 7))  # between them
BASELINE_MS = 10.0


@dataclass(frozen=True, eq=False)
class EncoderWorld:
    """Random models of an encoder."""

    layer_precisions: tuple[LayerPrecision, ...]
    loss: NDArray[np.float64]
    pairs: NDArray[np.float64]
    times: TimeModel
    groups: Groups  # scores and context of a block

    @property
    def alone(self) -> NDArray[np.float64]:
        """No pairs."""
        return np.zeros_like(self.pairs)


def encoder_world(blocks: int, seed: int) -> EncoderWorld:
    rng = np.random.default_rng(seed)
    names = [f"{block}.{part}" for block in range(blocks) for part in PARTS] + ["classes"]
    read: list[tuple[str | None, tuple[str, ...]]] = [(None, tuple(names[:3]))]
    for first in range(0, len(names) - 1, len(PARTS)):
        read += [(names[first + one], (names[first + other],)) for one, other in TENSORS]
        last = first + len(PARTS)
        read.append((names[last - 1], tuple(names[last : last + 3]) if last + 1 < len(names) else ("classes",)))
    edges = tuple(TensorEdge(writer, readers, False, int(rng.integers(10_000, 200_000))) for writer, readers in read)
    layer_precisions = tuple(
        LayerPrecision(name, kind) for name in names for kind in (PRODUCTS if name.endswith(("scores", "context")) else PRECISIONS)
    )
    loss = 10.0 ** rng.uniform(-5.0, -2.0, len(layer_precisions))
    pairs = np.triu(rng.normal(size=(len(loss),) * 2) * np.sqrt(np.outer(loss, loss)) * 0.2, 1)
    gains = dict(zip(layer_precisions, (rng.uniform(-0.1, 0.3, len(loss)) * BASELINE_MS / len(names)).tolist(), strict=True))
    times = TimeModel(BASELINE_MS, gains, edges, 0.0, dict.fromkeys(PRECISIONS, 0.01), _terms(edges, rng), lambda quantized: 0.01)
    groups = [(f"{block}.scores", f"{block}.context") for block in range(blocks)]
    return EncoderWorld(layer_precisions, loss, pairs + pairs.T, times, groups)


def _terms(edges: Sequence[TensorEdge], rng: np.random.Generator) -> tuple[Term, ...]:
    """Return terms of one, two, four and more layers, some with a layer that is no choice."""
    spent = StepTimes(dict.fromkeys(Step, ((100000, 0.05),)))
    terms: list[Term] = []
    for edge in edges:
        readers = tuple(Reader(layer, Layout.FLOATS, Layout.INTEGERS) for layer in edge.readers)
        others = (Layout.FLOATS,) if rng.random() < 0.3 else ()
        terms.append(border_term(Border(edge.producer, Layout.FLOATS, Layout.INTEGERS, readers, others, edge.elements), spent))
        if edge.producer is not None:
            terms.append(NeighbourTerm(edge.producer, (*edge.readers, "elsewhere"), 0.02, 0.01))
            corners = {(False, False): 0.05, (True, True): 0.02, (False, True): float(rng.uniform(0.0, 0.1))}
            terms.append(SiteTerm((edge.producer,), edge.readers, corners))
    return tuple(terms)


class PlainDescent:
    """What ``Descent`` does, slowly: every move is tried in turn, and what it leads to is asked of the models."""

    def __init__(
        self,
        layer_precisions: Sequence[LayerPrecision],
        loss: NDArray[np.float64],
        interaction: NDArray[np.float64],
        times: TimeModel,
        moves: Sequence[Move],
    ) -> None:
        self._layer_precisions, self._times, self._moves = tuple(layer_precisions), times, moves
        self._models = loss, interaction
        self._known: dict[frozenset[LayerPrecision], tuple[float, float]] = {}
        self.start({})

    def start(self, quantized: QuantizedLayers) -> None:
        self.quantized = frozenset(LayerPrecision(*item) for item in quantized.items()) & frozenset(self._layer_precisions)

    @property
    def ratio(self) -> float:
        return self._said(self.quantized)[0]

    @property
    def loss(self) -> float:
        return self._said(self.quantized)[1]

    def descend(self, rate: float) -> None:
        self._take_moves(rate, np.inf)

    def descend_within(self, most_loss: float) -> None:
        self._take_moves(0.0, most_loss * (1.0 + ROUNDING))

    def _said(self, quantized: frozenset[LayerPrecision]) -> tuple[float, float]:
        if quantized not in self._known:
            ratio = self._times.ratio({one.layer: one.precision for one in quantized})
            self._known[quantized] = ratio, predicted_loss([one in quantized for one in self._layer_precisions], *self._models)
        return self._known[quantized]

    def _take_moves(self, rate: float, most_loss: float) -> None:
        at, idle = 0, 0
        while idle < len(self._moves):
            move = self._moves[at % len(self._moves)]
            at, idle = at + 1, idle + 1
            there = frozenset(one for one in self.quantized if one.layer not in move.layers)
            if move.choice is not None:
                there |= {LayerPrecision(layer, move.choice) for layer in move.layers}
            (ratio, loss), (old_ratio, old_loss) = self._said(there), self._said(self.quantized)
            if there != self.quantized and loss <= most_loss and ratio + rate * loss < old_ratio + rate * old_loss - SMALLEST_GAIN:
                self.quantized, idle = there, 0
