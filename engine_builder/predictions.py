"""What the models of loss and time said of the engines before they were built, and the dependencies as a map: both for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from calibration.sensitivity import SensitivityTable
from engine_builder.assignment import PrecisionAssignment
from engine_builder.search.frontier import predicted_loss
from engine_builder.search.trial import Trial

MAX_MAPPED = 60  # layers in the map of dependencies: more can be neither read nor carried in report.json


def predictions(
    trials: Sequence[Trial], table: SensitivityTable, interaction: NDArray[np.float64], forecasts: Sequence[Mapping[str, object]]
) -> list[dict[str, object]]:
    """Return for each trial its predicted ``loss``, and the ``ratio`` that was predicted when it was proposed (None: it was not).

    Args:
        trials: All trials.
        table: The losses alone.
        interaction: (decisions, decisions) extra loss of each pair, in the order of the table's rows.
        forecasts: What the stage ``forecast`` returned, in order.
    """
    loss = np.array([row.loss for row in table.rows])
    proposed: dict[tuple[str, frozenset[str]], float] = {}
    for forecast in forecasts:
        for ladder in cast(Sequence[Mapping[str, Sequence[object]]], forecast["ladders"]):
            for rung, ratio in zip(ladder["rungs"], ladder["ratios"], strict=True):
                proposed.setdefault((str(ladder["name"]), frozenset(cast(Mapping[str, str], rung))), cast(float, ratio))
    listed: list[dict[str, object]] = []
    for trial in trials:
        low = [trial.precisions.get(row.layer) == row.precision for row in table.rows]
        said = {"loss": predicted_loss(low, loss, interaction), "ratio": proposed.get((trial.order, frozenset(trial.precisions)))}
        listed.append({"index": trial.index, "fingerprint": trial.fingerprint, **said})
    return listed


def dependency_map(table: SensitivityTable, interaction: NDArray[np.float64], assignment: PrecisionAssignment) -> dict[str, object]:
    """Return the extra loss of every pair of the MAX_MAPPED layers with the strongest dependencies, in the order of the probes.

    A layer stands for its decision in the precision that it got, or else its first. ``lower`` holds row i's entries for j < i; ``left_out``
    names the layers that are not in the map.

    Args:
        table: The decisions.
        interaction: (decisions, decisions) extra loss of each pair, in the order of the table's rows.
        assignment: The precision that each layer got.
    """
    place: dict[str, int] = {}
    for index, row in enumerate(table.rows):
        if row.layer not in place or row.precision == assignment[row.layer]:
            place[row.layer] = index
    names = list(place)
    rows = list(place.values())
    between = interaction[np.ix_(rows, rows)]
    strength = np.abs(between).sum(axis=1)
    kept = np.sort(np.argsort(-strength, kind="stable")[:MAX_MAPPED])
    inside = set(kept.tolist())
    return {
        "layers": [names[index] for index in kept],
        "lower": [[float(f"{between[i, j]:.4g}") for j in kept[:at]] for at, i in enumerate(kept)],
        "left_out": [name for index, name in enumerate(names) if index not in inside],
    }
