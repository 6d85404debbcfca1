"""The stage ``baseline``: builds what engines must beat where that is not the user's own file: the model in baseline precision.

Its accuracy is measured like that of every engine, against the user's model in float32: what it loses is never credited to a low precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from calibration.codec import json_from_value
from calibration.dataset import load_saved
from engine_builder.building import Building, building_backend
from engine_builder.config import config_from_json
from engine_builder.corrected import EXPLICIT_NAME, build
from engine_builder.evaluate import run_all, run_workers
from engine_builder.inspection import read_inspection
from engine_builder.model_files import keep_model
from engine_builder.outputs import ComparedOutputs
from engine_builder.trials import compare
from engine_builder.workspace import StageContext

FOLDER, FINAL_FOLDER = "baseline", "final-baseline"


def baseline(request: Mapping[str, object], context: StageContext, *, building: Building = building_backend) -> dict[str, object]:
    """Return ``baseline``, the engine, and ``inspection``, which now knows its scores; ``files`` names what both need besides.

    Args:
        request: ``inspection``, ``ranges`` and ``config``; ``final`` where this is the one that ships and not the search's.
        context: Where files go.
        building: Gives the backend.

    Raises:
        BuildError: The target cannot build the model even in its baseline precision.
    """
    found = read_inspection(request, context)
    config = config_from_json(request["config"])
    final = bool(request.get("final", False))
    folder = FINAL_FOLDER if final else FOLDER
    backend = building(config, context, final=final)
    engine = build(found, request, {}, backend, context.part(0.0, 0.5))
    context.progress(0.5, "baseline built")
    validation = load_saved(context.workspace.path(found.validation))
    runner = ComparedOutputs(backend.open(engine.path, threads=config.threads), found.compared)
    try:
        outputs = run_all(runner, validation, batch=found.scoring_batch, workers=run_workers(backend))
    finally:
        runner.close()
    scores, _ = compare(found, outputs, validation, context)
    files = [context.workspace.copy(path, f"{folder}/{path.name}") for path in engine.data_files]
    files.append(keep_model(context.scratch / EXPLICIT_NAME, f"{folder}/{EXPLICIT_NAME}", context.workspace))
    baseline_scores = context.workspace.write_arrays(f"{folder}_scores.npz", scores=scores)
    known = replace(found, baseline_type=backend.capabilities.baseline, baseline_scores=baseline_scores)
    return {
        "baseline": json_from_value(context.workspace.copy(engine.path, f"{folder}/{engine.path.name}")),
        "inspection": json_from_value(context.workspace.write_json(f"inspection.{folder}.json", json_from_value(known))),
        "files": json_from_value((*files, baseline_scores)),
    }
