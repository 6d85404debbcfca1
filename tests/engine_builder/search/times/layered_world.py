"""A chain of convolutions on a runtime with layouts, and the true times of its engines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.search.search_space import QuantizedLayers
from engine_builder.search.time_model import TensorEdge, Timed, term_ms
from engine_builder.search.times.borders import Border, BorderTerm, Reader, border_term
from engine_builder.search.times.kernel_sites import NeighbourTerm
from engine_builder.search.times.layouts import Layout, Step
from engine_builder.search.times.learned_times import KernelCosts
from engine_builder.search.times.step_times import StepTimes

BASELINE_MS = 10.0
STEP_NS = {Step.BLOCK: 0.2, Step.UNBLOCK: 0.4, Step.QUANTIZE: 0.3, Step.DEQUANTIZE: 0.2, Step.TRANSPOSE: 0.1}


def low(names: Iterable[str]) -> dict[str, Precision]:
    return dict.fromkeys(names, Precision.INT8)


@dataclass(frozen=True)
class LayeredWorld:
    """The layers ``c00``, ``c01``, ...; engines take what the profiles say, but for the true factors here."""

    layers: int = 20
    seed: int = 0
    conversions: float = 1.0  # how many times as long they take
    by_step: Mapping[Step, float] = field(default_factory=dict)  # besides
    overhead: float = 0.0  # of the baseline's time, of all layers quantized
    gains: float = 1.0
    alone: float = 0.0  # milliseconds longer of a float layer between quantized ones
    share: float = 0.5  # of the baseline's time that all layers save

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"c{index:02}" for index in range(self.layers))

    @property
    def borders(self) -> tuple[BorderTerm, ...]:
        rng = np.random.default_rng([self.seed, 1])
        sizes = rng.integers(200_000, 1_500_000, self.layers + 1)
        times = StepTimes({step: ((1_000_000, cost),) for step, cost in STEP_NS.items()})

        def reader(name: str) -> Reader:
            return Reader(name, Layout.BLOCKED_FLOATS, Layout.INTEGERS_CHANNELS_LAST)

        found = [Border(None, Layout.FLOATS, Layout.FLOATS, (reader(self.names[0]),), (), int(sizes[0]))]
        for index, name in enumerate(self.names):
            readers = tuple(reader(other) for other in self.names[index + 1 : index + 2])
            others = () if readers else (Layout.FLOATS,)
            found.append(Border(name, Layout.BLOCKED_FLOATS, Layout.INTEGERS_CHANNELS_LAST, readers, others, int(sizes[index + 1])))
        return tuple(border_term(border, times) for border in found)

    @property
    def gain_ms(self) -> dict[LayerPrecision, float]:
        rng = np.random.default_rng([self.seed, 2])
        parts = rng.uniform(0.3, 1.0, self.layers)
        saved = self.share * BASELINE_MS * parts / parts.sum()
        return {LayerPrecision(name, Precision.INT8): float(gain) for name, gain in zip(self.names, saved, strict=True)}

    @property
    def edges(self) -> tuple[TensorEdge, ...]:
        return tuple(
            TensorEdge(term.border.writer, tuple(one.layer for one in term.border.readers), bool(term.border.others), term.border.elements)
            for term in self.borders
        )

    def neighbours(self, alone: float) -> tuple[NeighbourTerm, ...]:
        around = [
            tuple(other for other in (before, after) if other)
            for before, after in zip(("", *self.names), (*self.names[1:], ""), strict=False)
        ]
        return tuple(NeighbourTerm(name, layers, alone, 0.0) for name, layers in zip(self.names, around, strict=True))

    @property
    def costs(self) -> KernelCosts:
        """What profiles say; of the neighbours they always say 0.05 ms, whether it is so or not."""
        return KernelCosts(BASELINE_MS, self.gain_ms, self.edges, self.borders, (), self.neighbours(0.05))

    def ratio(self, quantized: QuantizedLayers) -> float:
        """Return the true latency over the baseline's."""
        factors = {step.value: self.conversions * self.by_step.get(step, 1.0) for step in Step}
        spent = sum(term_ms(term.scaled(factors), quantized) for term in self.borders)
        spent += sum(term_ms(term, quantized) for term in self.neighbours(self.alone))
        saved = self.gains * sum(self.gain_ms[LayerPrecision(*item)] for item in quantized.items())
        return 1.0 + (spent - saved) / BASELINE_MS + self.overhead * len(quantized) / self.layers

    def timed(self, quantized: QuantizedLayers, noise: float = 0.0) -> Timed:
        return Timed(quantized, self.ratio(quantized) * (1.0 + noise))

    def mixed(self, count: int, seed: int = 0) -> list[dict[str, Precision]]:
        """Return mixed engines: half of them scattered, half of them runs."""
        rng = np.random.default_rng([self.seed, 3, seed])
        found = []
        for index in range(count):
            start, stop = sorted(rng.choice(self.layers + 1, 2, replace=False).tolist())
            scattered = [name for name in self.names if rng.random() < 0.5]
            found.append(low(self.names[start:stop] if index % 2 else scattered or self.names[:1]))
        return found
