"""The stage ``rebuild``: builds a finalist as it would ship, with more effort than the search's engines got, and scores what came out.

Other kernels round in other places, so the trial's scores say nothing certain of the new engine: it is judged by its own.
"""

from __future__ import annotations

import time
from dataclasses import replace

from calibration.data.dataset import load_saved
from engine_builder.engines.factory import Building, building_backend
from engine_builder.engines.quantized_engine import EngineRecipe, build
from engine_builder.evaluation.measurement import accuracy, kept_engine, scored_engine, search_half, write_achieved
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
    backend = building(job.config, context, final=True)
    recipe = EngineRecipe(inspection, job.calibrated, trial.precisions, trial.corrections)
    engine = build(recipe, backend, context.part(0.0, 0.7))
    context.progress(0.7, "engine built")
    validation = load_saved(workspace.path(inspection.samples.validation))
    with scored_engine(engine.path, inspection, validation, backend, workspace, threads=job.config.threads) as scored:
        scores, loss = scored.scores, scored.loss
    reference = workspace.read_scores(inspection.reference.scores)
    budget, half = job.config.accuracy.budget, search_half(len(scores), job.config.search.seed)
    name = f"final/{trial.fingerprint}"
    return replace(
        trial,
        on_all=accuracy(reference, scores, budget),
        on_search=accuracy(reference[half], scores[half], budget),
        loss=loss,
        size_bytes=engine.size_bytes,
        scores=workspace.write_arrays(f"{name}.npz", scores=scores),
        seconds=time.perf_counter() - start,
        engine=kept_engine(engine, backend, context, f"{name}.plan"),
        reached=write_achieved(inspection, trial.precisions, engine, context, f"{name}-reached.json"),
    )
