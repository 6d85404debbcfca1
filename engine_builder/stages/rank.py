"""The stage ``rank``: puts the measurements of the float model together, and sorts the layers by them."""

from __future__ import annotations

from calibration.sensitivity.interactions import dependency_matrix, sharing_pairs
from calibration.sensitivity.ranking import forwards_of_probes, sensitivity_table
from engine_builder.records.calibrated import layer_precisions_of, read_model_record
from engine_builder.records.loss_files import read_losses
from engine_builder.search.rankings import likely_interactions, orders_from
from engine_builder.stage_io.measuring import RankRequest, RankResult
from engine_builder.workspace.workspace import StageContext


def rank(request: RankRequest, context: StageContext) -> RankResult:
    """Return the sensitivity table, the interactions of pairs and the rankings."""
    workspace = context.workspace
    prepared = read_model_record(request.of, workspace)
    layers = prepared.layers
    wanted = layer_precisions_of(layers, request.of.eligible)
    layer_losses = read_losses(request.losses, wanted, workspace)
    alone = [forwards_of_probes([item], layers) - 1.0 for item in wanted]
    forwards = layer_losses.samples + sum(count * work for count, work in zip(layer_losses.counts.tolist(), alone, strict=True))
    table = sensitivity_table(layer_losses, request.traces, hessian_samples=request.hessian_samples, plain_forwards=forwards)
    matrix = dependency_matrix(layer_losses, request.tests, sharing_pairs(wanted, layers, prepared.scheme))
    likely = likely_interactions(matrix, layer_losses.mean)
    interactions = workspace.write_arrays(
        "dependency.npz",
        interaction=matrix.interaction,
        error=matrix.error,
        likely=likely.mean,
        likely_error=likely.error,
        common_error=likely.common_error,
        gram=layer_losses.gram,
        gram_error=layer_losses.gram_error,
        loss_covariance=layer_losses.loss_covariance,
    )
    return RankResult(workspace.write_value("sensitivity.json", table), interactions, orders_from(table, matrix, request.orders))
