"""What a report says of layers and of pairs of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.metrics import OutputKind
from calibration.graph.layers import Layer, LayerKind
from calibration.number_formats.precision import Precision
from calibration.sensitivity.records import PairTest, SensitivityTable
from engine_builder.records.assignment import PrecisionAssignment
from engine_builder.records.inspection import Inspection
from engine_builder.reporting.body.score_of_loss import DropEstimate, ScoreOfLoss

MAX_MAPPED = 60  # layers in the map of dependencies: more can be neither read nor carried in report.json


@dataclass(frozen=True, slots=True)
class ReportedLayer:
    """A layer with the precision that it got, and what one layer precision about it costs alone: the last in the order of the probes."""

    name: str
    op_type: str
    kind: LayerKind
    precision: Precision
    macs: int  # multiply-accumulates of one sample
    weights: int
    loss: float | None  # mean over samples; None where the layer was not probed, as below
    loss_error: float | None  # standard error
    hessian: float | None  # the same loss as the Hessian's trace estimates it
    hessian_error: float | None
    stays_float: str | None = None  # why it takes no low precision whatever that would cost, in words
    drop: DropEstimate | None = None  # what ``loss`` costs in the job's metric, about; None where that is not known


@dataclass(frozen=True, slots=True)
class MeasuredPair:
    """Two layers whose losses were measured together."""

    first: str
    second: str
    dependency: float  # loss of both quantized minus the loss of each alone
    error: float  # standard error
    samples: int


@dataclass(frozen=True, slots=True)
class DependencyMap:
    """The extra loss of pairs of layers."""

    layers: tuple[str, ...]  # in the order of the probes
    lower: tuple[tuple[float, ...], ...]  # row i's values for j < i
    left_out: tuple[str, ...] = ()  # layers with weaker dependencies, which are not in the map

    def __post_init__(self) -> None:
        """Refuse rows that are no lower triangle."""
        if [len(row) for row in self.lower] != list(range(len(self.layers))):
            raise ValueError(f"lower has rows of {[len(row) for row in self.lower]} values, expected 0 to {len(self.layers) - 1}")


def reported_layers(
    layers: Iterable[Layer],
    table: SensitivityTable,
    assignment: PrecisionAssignment,
    stay_float: Mapping[str, str],
    law: ScoreOfLoss | None = None,
) -> tuple[ReportedLayer, ...]:
    """Return all layers, in graph order.

    Args:
        layers: The model's.
        table: What the probes found.
        assignment: The precision that each layer got.
        stay_float: Why layers stay float, by name: those that must.
        law: What a loss costs in the job's metric, where it is known.
    """
    rows, got = {row.layer: row for row in table.rows}, dict(assignment.choices)
    listed = []
    for layer in layers:
        row = rows.get(layer.name)
        listed.append(
            ReportedLayer(
                name=layer.name,
                op_type=layer.op_type,
                kind=layer.kind,
                precision=got[layer.name],
                macs=layer.macs,
                weights=layer.weight_count,
                loss=row.loss if row else None,
                loss_error=row.loss_error if row else None,
                hessian=row.hessian if row else None,
                hessian_error=row.hessian_error if row else None,
                stays_float=stay_float.get(layer.name),
                drop=None if law is None or row is None else law.estimate(row.loss, row.loss_error),
            )
        )
    return tuple(listed)


def measured_pairs(tests: Iterable[PairTest]) -> tuple[MeasuredPair, ...]:
    """Return the exact pair tests, the strongest first."""
    strongest = sorted(tests, key=lambda test: -abs(test.dependency))
    return tuple(MeasuredPair(test.first.layer, test.second.layer, test.dependency, test.error, test.samples) for test in strongest)


def dependency_map(table: SensitivityTable, interaction: NDArray[np.float64], assignment: PrecisionAssignment) -> DependencyMap:
    """Return the extra loss of every pair of the MAX_MAPPED layers with the strongest dependencies, in the order of the probes.

    A layer stands for its layer precision in the precision that it got, or else its first.

    Args:
        table: The layer precisions.
        interaction: (layer precisions, layer precisions) extra loss of each pair, in the order of the table's rows.
        assignment: The precision that each layer got.
    """
    got = dict(assignment.choices)
    place: dict[str, int] = {}
    for index, row in enumerate(table.rows):
        if row.layer not in place or row.precision == got[row.layer]:
            place[row.layer] = index
    names = list(place)
    rows = list(place.values())
    between = interaction[np.ix_(rows, rows)]
    strength = np.abs(between).sum(axis=1)
    kept = np.sort(np.argsort(-strength, kind="stable")[:MAX_MAPPED])
    return DependencyMap(
        layers=tuple(names[index] for index in kept),
        lower=tuple(tuple(float(f"{between[i, j]:.4g}") for j in kept[:at]) for at, i in enumerate(kept)),
        left_out=_left_out(names, kept.tolist()),
    )


def _left_out(names: Sequence[str], kept: Iterable[int]) -> tuple[str, ...]:
    inside = set(kept)
    return tuple(name for index, name in enumerate(names) if index not in inside)


def output_weights(inspection: Inspection) -> dict[str, float]:
    """Return the share of each compared output in the loss, by name: 0..1, 1 in all."""
    outputs = inspection.model.outputs
    given = dict(zip(outputs.names, outputs.weights, strict=True))
    kept = {name: given[name] for name, kind in zip(outputs.names, outputs.kinds, strict=False) if kind is not OutputKind.IGNORE}
    return {name: weight / sum(kept.values()) for name, weight in kept.items()}
