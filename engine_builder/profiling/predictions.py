"""What the models of loss and time said of the engines before they were built."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.codec import value_from_json
from calibration.sensitivity.ranking import SensitivityTable
from engine_builder.records.trial import Trial
from engine_builder.reporting.body.search_facts import Prediction
from engine_builder.reporting.body.stage_results import PredictResult
from engine_builder.search.loss_model import LossCheck, LossModel, check
from engine_builder.search.search_space import Low
from engine_builder.workspace.workspace import FileRef, StageContext


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
    trials: Sequence[Trial], table: SensitivityTable, arrays: Mapping[str, NDArray[np.generic]], forecasts: Sequence[PredictResult]
) -> tuple[Prediction, ...]:
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
        for ladder in forecast.ladders:
            for fingerprint, ratio in zip(ladder.fingerprints, ladder.ratios, strict=True):
                proposed.setdefault((ladder.name, fingerprint), ratio)
    losses = loss_model(table, arrays)
    checked = check(losses, trials)
    said = [said_of(losses, checked, trial.precisions) for trial in trials]
    ratios = [proposed.get((trial.order, trial.fingerprint)) for trial in trials]
    return tuple(
        value_from_json(Prediction, {"index": trial.index, "fingerprint": trial.fingerprint, **loss, "ratio": ratio})
        for trial, loss, ratio in zip(trials, said, ratios, strict=True)
    )
