"""The stage ``rebuild``: builds a finalist as it would ship, with more effort than the search's engines got, and scores what came out.

Other kernels round in other places, so the trial's scores say nothing certain of the new engine: it is judged by its own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from calibration.codec import json_from_value, value_from_json
from calibration.data.dataset import load_saved
from engine_builder.config.config import config_from_json
from engine_builder.engines.factory import Building, building_backend
from engine_builder.engines.quantized_engine import build
from engine_builder.evaluation.measurement import accuracy, compare, kept_engine, search_half, write_reached
from engine_builder.evaluation.outputs import ComparedOutputs
from engine_builder.evaluation.run_samples import run_all, run_workers
from engine_builder.records.inspection import read_inspection
from engine_builder.records.trial import Trial
from engine_builder.workspace.workspace import StageContext


def rebuild(request: Mapping[str, object], context: StageContext, *, building: Building = building_backend) -> dict[str, object]:
    """Return ``trial``: the finalist with the engine, the scores, the size and the layers' precisions of the final build.

    Its latency is still that of the search; the verdict times it anew, with the final baseline.

    Args:
        request: ``inspection``, ``ranges``, ``config`` and ``finalist``, a trial.
        context: Where files go.
        building: Gives the backend.

    Raises:
        BuildError: The engine cannot be built at the final level.
        EngineError: It fails when it runs.
    """
    start = time.perf_counter()
    found = read_inspection(request, context)
    config = config_from_json(request["config"])
    trial = value_from_json(Trial, request["finalist"])
    backend = building(config, context, final=True)
    engine = build(found, request, trial.precisions, backend, context.part(0.0, 0.7), trial.corrections)
    context.progress(0.7, "engine built")
    validation = load_saved(context.workspace.path(found.validation))
    runner = ComparedOutputs(backend.open(engine.path, threads=config.threads), found.compared, found.axes)
    try:
        outputs = run_all(runner, validation, batch=found.scoring_batch, workers=run_workers(backend))
    finally:
        runner.close()
    scores, loss = compare(found, outputs, validation, context)
    reference = cast("NDArray[np.float64]", context.workspace.read_arrays(found.scores)["scores"])
    half = search_half(len(scores), config.search.seed)
    name = f"final/{trial.fingerprint}"
    final = replace(
        trial,
        on_all=accuracy(reference, scores, config.accuracy.budget),
        on_search=accuracy(reference[half], scores[half], config.accuracy.budget),
        loss=loss,
        size_bytes=engine.size_bytes,
        scores=context.workspace.write_arrays(f"{name}.npz", scores=scores),
        seconds=time.perf_counter() - start,
        engine=kept_engine(engine, backend, context, f"{name}.plan"),
        reached=write_reached(found, trial.precisions, engine, context, f"{name}-reached.json"),
    )
    return {"trial": json_from_value(final)}
