"""What the models of loss and time said of the engines before they were built, and the dependencies as a map: both for the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from calibration.codec import value_from_json
from calibration.sensitivity.ranking import SensitivityTable
from engine_builder.records.assignment import PrecisionAssignment
from engine_builder.records.trial import Trial
from engine_builder.search.loss_model import LossCheck, LossModel, check
from engine_builder.search.search_space import Low
from engine_builder.workspace.workspace import FileRef, StageContext

MAX_MAPPED = 60  # layers in the map of dependencies: more can be neither read nor carried in report.json


def loss_model(table: SensitivityTable, arrays: Mapping[str, NDArray[np.generic]]) -> LossModel:
    """Return the model of loss that the probes make.

    Args:
        table: The losses alone.
        arrays: ``interaction`` and ``error`` of each pair and ``loss_covariance`` of the mean losses, (decisions, decisions), in the order
            of the table's rows.
    """
    return LossModel(
        tuple(row.decision for row in table.rows),
        np.array([row.loss for row in table.rows], dtype=np.float64),
        np.asarray(arrays["loss_covariance"], dtype=np.float64),
        np.asarray(arrays["interaction"], dtype=np.float64),
        np.asarray(arrays["error"], dtype=np.float64),
    )


def read_losses(request: Mapping[str, object], context: StageContext) -> LossModel:
    """Return the model of loss from the ``table`` and ``dependency`` that a stage's request names."""
    table = value_from_json(SensitivityTable, context.workspace.read_json(value_from_json(FileRef, request["table"])))
    return loss_model(table, context.workspace.read_arrays(value_from_json(FileRef, request["dependency"])))


def said_of(losses: LossModel, checked: LossCheck, low: Low) -> dict[str, float | None]:
    """Return the predicted ``loss`` of an assignment, refitted to the trials as ``refitted``, each with its standard error if it is known.

    Args:
        losses: What the probes found.
        checked: How far that is off the trials.
        low: The precision of each low layer.
    """
    said = losses.predict(low)
    refitted = checked.refit(said)
    return {
        "loss": said.loss,
        "loss_error": said.error if math.isfinite(said.error) else None,
        "refitted": refitted.loss,
        "refitted_error": refitted.error if math.isfinite(refitted.error) else None,
    }


def predictions(
    trials: Sequence[Trial], table: SensitivityTable, arrays: Mapping[str, NDArray[np.generic]], forecasts: Sequence[Mapping[str, object]]
) -> list[dict[str, object]]:
    """Return for each trial what ``said_of`` says, and the ``ratio`` that was predicted when it was proposed (None: it was not).

    A trial is known by its fingerprint, which is that of what was asked for: the engine may have less
    (``engine_builder.qdq.rules.legalize``).

    Args:
        trials: All trials.
        table: The losses alone.
        arrays: As for ``loss_model``.
        forecasts: What the stage ``forecast`` returned, in order.
    """
    proposed: dict[tuple[str, str], float] = {}
    for forecast in forecasts:
        for ladder in cast(Sequence[Mapping[str, Sequence[object]]], forecast["ladders"]):
            for fingerprint, ratio in zip(ladder["fingerprints"], ladder["ratios"], strict=True):
                proposed.setdefault((str(ladder["name"]), str(fingerprint)), cast(float, ratio))
    losses = loss_model(table, arrays)
    checked = check(losses, trials)
    return [
        {
            "index": trial.index,
            "fingerprint": trial.fingerprint,
            **said_of(losses, checked, trial.precisions),
            "ratio": proposed.get((trial.order, trial.fingerprint)),
        }
        for trial in trials
    ]


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
