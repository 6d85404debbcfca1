"""What the models of loss and time said of the engines before they were built."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.sensitivity.records import SensitivityTable
from engine_builder.records.trial import Trial
from engine_builder.reporting.body.search_facts import Prediction
from engine_builder.search.loss_model import LossCheck, LossModel, check
from engine_builder.search.search_space import QuantizedLayers
from engine_builder.stage_io.engines import LossSaid, PredictResult
from engine_builder.stage_io.measuring import RankResult
from engine_builder.workspace.workspace import Workspace


def loss_model(table: SensitivityTable, arrays: Mapping[str, NDArray[np.generic]]) -> LossModel:
    """Return the model of loss that the probes make.

    Args:
        table: The losses alone.
        arrays: ``likely``, ``likely_error`` and ``common_error`` of each pair and ``loss_covariance`` of the mean losses, (layer
            precisions, layer precisions), in the order of the table's rows.
    """
    return LossModel(
        tuple(row.layer_precision for row in table.rows),
        np.array([row.loss for row in table.rows], dtype=np.float64),
        np.asarray(arrays["loss_covariance"], dtype=np.float64),
        np.asarray(arrays["likely"], dtype=np.float64),
        np.asarray(arrays["likely_error"], dtype=np.float64),
        np.asarray(arrays["common_error"], dtype=np.float64),
    )


def read_loss_model(ranked: RankResult, workspace: Workspace) -> LossModel:
    """Return the model of loss that the measurements make."""
    return loss_model(workspace.read_value(SensitivityTable, ranked.table), workspace.read_arrays(ranked.interactions))


def said_of(losses: LossModel, checked: LossCheck, quantized: QuantizedLayers) -> LossSaid:
    """Return the predicted loss of an assignment, as the probes have it and refitted to the trials.

    Args:
        losses: What the probes found.
        checked: How far that is off the trials.
        quantized: The precision of each quantized layer.
    """
    said = losses.predict(quantized)
    refitted = checked.refit(said)
    return LossSaid(
        said.loss,
        said.error if math.isfinite(said.error) else None,
        refitted.loss,
        refitted.error if math.isfinite(refitted.error) else None,
    )


def predictions(trials: Sequence[Trial], losses: LossModel | None, search_predictions: Sequence[PredictResult]) -> tuple[Prediction, ...]:
    """Return for each trial what ``said_of`` says, and the ``ratio`` that was predicted when it was proposed (None: it was not).

    A trial is known by its fingerprint, which is that of what was asked for: the engine may have less
    (``engine_builder.qdq.rules.legalize``).

    Args:
        trials: All trials.
        losses: What the probes found; None where nothing was probed.
        search_predictions: What the stage ``predict`` returned, in order.
    """
    proposed: dict[tuple[str, str], float] = {}
    for prediction in search_predictions:
        for sequence in prediction.ladders:
            for fingerprint, ratio in zip(sequence.fingerprints, sequence.ratios, strict=True):
                proposed.setdefault((sequence.name, fingerprint), ratio)
    ratios = [proposed.get((trial.order, trial.fingerprint)) for trial in trials]
    if losses is None:
        return tuple(
            Prediction(trial.index, trial.fingerprint, None, None, None, None, ratio) for trial, ratio in zip(trials, ratios, strict=True)
        )
    checked = check(losses, trials)
    said = [said_of(losses, checked, trial.precisions) for trial in trials]
    return tuple(
        Prediction(trial.index, trial.fingerprint, loss.loss, loss.loss_error, loss.refitted, loss.refitted_error, ratio)
        for trial, loss, ratio in zip(trials, said, ratios, strict=True)
    )
