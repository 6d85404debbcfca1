"""The stage ``prepare``: an assignment that may be asked for becomes an engine and is scored, not timed.

How long an engine is timed depends on the answers of the trials before it, and on which device. So that is left to the trial itself.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from calibration.data.dataset import load_saved
from engine_builder.backends.base import Backend, Engine, Source
from engine_builder.engines.candidates.scored_candidate import Candidate, made_under, scored_candidate
from engine_builder.engines.factory import building_backend
from engine_builder.engines.quantized_engine import EXPLICIT_NAME, legalized
from engine_builder.errors import BuildError
from engine_builder.records.inspection import Inspection
from engine_builder.stage_io.engines import Prepared, PrepareRequest
from engine_builder.workspace.external_files import external_files
from engine_builder.workspace.workspace import FileRef, StageContext


def prepare(request: PrepareRequest, context: StageContext) -> Prepared:
    """Build and score one assignment.

    Args:
        request: The job and the assignment, with quantized layers.
        context: Where files go.

    Raises:
        BuildError: The engine cannot be built, or fails when it runs.
    """
    start = time.perf_counter()
    job, workspace = request.job, context.workspace
    inspection = workspace.read_value(Inspection, job.inspection)
    backend = building_backend(job.config, context)
    kind = made_under(backend)
    validation = load_saved(workspace.path(inspection.samples.validation))
    place = request.place
    quantized = legalized(inspection, request.precisions, backend, context)
    if not quantized:
        raise BuildError("no layer takes the precision that was asked for: this is the baseline", fix="ask for the trial itself")
    candidate = Candidate(job, inspection, quantized)
    with ExitStack() as opened:
        prefix = f"{place}/candidate"
        found = scored_candidate(
            candidate, backend, validation, context, opened, prefix, start=start, has_time=lambda built_in, spent: True
        )
    name = backend.capabilities.engine_name
    engine = workspace.copy(found.engine.path, f"{place}/{name}")
    return Prepared(
        found.precisions,
        engine,
        _beside(found.engine, backend, context, place),
        found.engine.size_bytes,
        found.on_all,
        found.on_search,
        found.is_inside,
        found.loss,
        found.are_outputs_equal,
        found.bias,
        found.corrections,
        found.scores,
        found.reached,
        found.layers,
        time.perf_counter() - start,
        found.built_twice_in,
        kind,
    )


def _beside(engine: Engine, backend: Backend, context: StageContext, place: str) -> tuple[FileRef, ...]:
    """Keep what must lie beside the engine: where it does not run here, with the model that stands for it."""
    files: list[Path] = list(engine.data_files)
    if backend.capabilities.latency_source is Source.PREDICTED:
        explicit = engine.path.with_name(EXPLICIT_NAME)
        files += [explicit, *(explicit.with_name(name) for name in external_files(explicit))]
    return tuple(context.workspace.copy(file, f"{place}/{file.name}") for file in dict.fromkeys(files) if file != engine.path)
