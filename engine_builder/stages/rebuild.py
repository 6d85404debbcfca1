"""The stage ``rebuild``: builds a finalist as it would ship, with more effort than the search's engines got, and scores what came out.

Other kernels round in other places, so the trial's scores say nothing certain of the new engine: it is judged by its own.
"""

from __future__ import annotations

import time
from dataclasses import replace

from calibration.data.dataset import load_saved
from engine_builder.engines.factory import Building, building_backend
from engine_builder.engines.quantized_engine import build, recipe_of
from engine_builder.evaluation.measurement import (
    accuracy,
    accuracy_on_search,
    keep_layers,
    kept_engine,
    scored_engine,
    write_achieved,
    write_scores,
)
from engine_builder.records.inspection import Inspection
from engine_builder.records.trial import Trial
from engine_builder.stage_io.engines import RebuildRequest
from engine_builder.workspace.workspace import StageContext


def rebuild(request: RebuildRequest, context: StageContext, *, building: Building = building_backend) -> Trial:
    """Return the finalist with the engine, the scores, the size and the layers' precisions of the final build.

    Its latency is still that of the search; the verdict times it anew, with the final baseline.

    Args:
        request: The job and the finalist.
        context: Where files go.
        building: Gives the backend.

    Raises:
        BuildError: The engine cannot be built at the final level.
        EngineError: It fails when it runs.
    """
    start = time.perf_counter()
    job, trial, workspace = request.job, request.finalist, context.workspace
    inspection = workspace.read_value(Inspection, job.inspection)
    backend = building(job.config, context, final=True, route=trial.build_route)
    recipe = recipe_of(trial, inspection, job.calibrated)
    engine = build(recipe, backend, context.part(0.0, 0.7))
    context.progress(0.7, "engine built")
    validation = load_saved(workspace.path(inspection.samples.validation))
    with scored_engine(engine.path, inspection, validation, backend, workspace, threads=job.config.threads) as scored:
        found, loss = scored.engine, scored.loss
    reference = workspace.read_scores(inspection.reference.scores)
    metric = inspection.reference.metric
    name = f"final/{trial.fingerprint}"
    return replace(
        trial,
        on_all=accuracy(reference, found, metric, job.config),
        on_search=accuracy_on_search(reference, found, metric, job.config),
        loss=loss,
        size_bytes=engine.size_bytes,
        scores=write_scores(found, workspace, f"{name}.npz"),
        seconds=time.perf_counter() - start,
        engine=kept_engine(engine, backend, context, f"{name}.plan"),
        are_outputs_equal=found.are_outputs_equal,
        reached=write_achieved(inspection, trial.precisions, engine, context, f"{name}-reached.json"),
        layers=keep_layers(engine, context, f"{name}-layers.json"),
    )
