"""Builds the engine of an assignment with its biases corrected, where that lowers its loss.

The corrections are measured on some of the calibration samples with everything before each layer as it is in the engine, and kept only if
the engine with them loses less on others than the one without. Where builds are dear the two are compared as they are simulated, and only
the better one is built.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.algorithms.bias_correction import bias_locations, corrections
from calibration.data.dataset import SampleShare, load_saved
from calibration.number_formats.precision import Precision
from calibration.onnx_model.model_io import read_model, save_model
from calibration.process.memory import return_dropped_models
from calibration.sensitivity.task_losses import losses
from engine_builder.backends.base import Backend, Engine, Runner
from engine_builder.backends.onnxruntime.cpu import OrtCpuRunner
from engine_builder.evaluation.outputs import ComparedOutputs
from engine_builder.evaluation.run_samples import run_all, run_workers
from engine_builder.qdq.dialects.base import ExplicitPlan
from engine_builder.qdq.emit.biases import with_corrected_biases
from engine_builder.records.calibrated import Calibrated, read_corrections, read_ranges
from engine_builder.records.corrections import Correction, CorrectionData, CorrectionKind, read_levels
from engine_builder.records.inspection import Inspection
from engine_builder.records.trial import Trial
from engine_builder.workspace.model_files import model_size_bytes
from engine_builder.workspace.workspace import FileRef, StageContext, Workspace

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CorrectedEngine:
    """The better engine of an assignment."""

    engine: Engine
    correction: Correction | None = None  # what the correction was worth; None where there was nothing to correct
    corrections: FileRef | None = None  # those that the engine has
    plain: Callable[[], Engine] | None = None  # gives the engine without them, where it has some; builds it where that was not done yet


@dataclass(frozen=True, slots=True)
class EngineRecipe:
    """What the engine of an assignment is made from."""

    inspection: Inspection
    calibrated: Calibrated
    precisions: Mapping[str, Precision]  # of each quantized layer
    corrections: FileRef | None = None  # of biases, that ``build_with_bias_correction`` kept
    build_route: str = ""  # by which the engine is built: the explicit model says it, the backend does it


def recipe_of(trial: Trial, inspection: Inspection, calibrated: Calibrated) -> EngineRecipe:
    """Return what the engine of a trial was made from.

    Args:
        trial: It was built.
        inspection: The job's inspection.
        calibrated: What the job's engines are made of by now.
    """
    made_of = calibrated if trial.made_with is None else replace(calibrated, corrections=trial.made_with)
    return EngineRecipe(inspection, made_of, trial.precisions, trial.corrections, trial.build_route)


def build(recipe: EngineRecipe, backend: Backend, context: StageContext) -> Engine:
    """Return the engine of an assignment in the scratch folder; the explicit model lies beside it. Progress is that of the build.

    Args:
        recipe: What it is made from.
        backend: Of the target.
        context: Where the engine goes.
    """
    free = _freeing(recipe.inspection, context)
    explicit = _explicit(recipe, backend, context)
    free()
    _write(explicit, backend, context.scratch)
    del explicit
    free()
    return _engine(recipe.inspection, backend, context.scratch, context)


def write_explicit(recipe: EngineRecipe, backend: Backend, context: StageContext) -> Path:
    """Write the explicit model of an assignment into the scratch folder and return its path; arguments as for ``build``."""
    save_model(_explicit(recipe, backend, context), context.scratch / EXPLICIT_NAME)
    return context.scratch / EXPLICIT_NAME


def _explicit(recipe: EngineRecipe, backend: Backend, context: StageContext) -> onnx.ModelProto:
    shifts = None if recipe.corrections is None else _floats(context.workspace.read_arrays(recipe.corrections))
    explicit = _Plan(recipe, backend, context.workspace).explicit(shifts)
    if recipe.build_route:
        explicit.metadata_props.add(key=BUILD_ROUTE, value=recipe.build_route)
    return explicit


def legalized(inspection: Inspection, quantized: Mapping[str, Precision], backend: Backend, context: StageContext) -> dict[str, Precision]:
    """Return the quantized layers as the target's engines can have them: some choices are made together or not at all.

    Args:
        inspection: The job's inspection.
        quantized: Precision of each quantized layer, as asked.
        backend: Of the target.
        context: Where the model is.
    """
    if not quantized:
        return {}
    path = context.workspace.path(inspection.model.file)
    return backend.capabilities.dialect.legalized(
        lambda: read_model(path), inspection.model.layers, quantized, inspection.baseline.precision
    )


def build_with_bias_correction(
    recipe: EngineRecipe, backend: Backend, context: StageContext, name: str, *, threads: int
) -> CorrectedEngine:
    """Return the better engine of an assignment, with corrected biases or without.

    Args:
        recipe: What it is made from, without corrections.
        backend: Of the target.
        context: Where files go.
        name: Of the file of corrections.
        threads: Of the engines as they are compared.
    """
    found = recipe.inspection
    free = _freeing(found, context)
    plan = _Plan(recipe, backend, context.workspace)
    explicit = plan.explicit()
    free()
    _write(explicit, backend, context.scratch)
    free()
    data = plan.correction_table.correction
    locations = [location for location in plan.locations if location.layer in recipe.precisions]
    if data is None or not locations:
        return CorrectedEngine(_engine(found, backend, context.scratch, context.part(0.0, 0.9)))
    is_simulated = backend.capabilities.builds_are_dear
    engine = None if is_simulated else _engine(found, backend, context.scratch, context.part(0.0, 0.4))
    samples = load_saved(context.workspace.path(found.samples.calibration))
    means = {name: np.asarray(array, dtype=np.float64) for name, array in context.workspace.read_arrays(data.means).items()}
    # Means of layers that round by call are those of the user's calls; of all others they are the same in calls of any size.
    rounds_by_call = any(precision.is_dynamic for precision in recipe.precisions.values())
    together = found.calls.scored_batch if rounds_by_call else found.model.batch
    batches = SampleShare(samples, np.array(data.fitted, dtype=np.int64)).batches(min(together, len(data.fitted)))
    explicit = backend.capabilities.dialect.simulated(explicit)  # what the engine computes, with kernels that the CPU has
    shifts = corrections(explicit, locations, means, batches)
    del explicit
    folder = context.scratch / "corrected"
    folder.mkdir()
    free()
    explicit = plan.explicit(shifts)
    del plan
    free()
    _write(explicit, backend, folder)
    del explicit
    free()
    corrected = None if is_simulated else _engine(found, backend, folder, context.part(0.5, 0.9))
    held_out = SampleShare(samples, np.array(data.held_out, dtype=np.int64))

    def loss(built: Engine | None, place: Path) -> NDArray[np.float64]:
        runner = (
            OrtCpuRunner(place / EXPLICIT_NAME, threads=threads, as_written=True)
            if built is None
            else backend.open(built.path, threads=threads)
        )
        return _loss(runner, data, held_out, found, backend, context.workspace)

    before, after = loss(engine, context.scratch), loss(corrected, folder)
    gain = before - after
    kept = bool(gain.mean() > 0.0)
    error = float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else float(abs(gain[0]))
    where = tuple(location.layer for location in locations)
    correction = Correction(CorrectionKind.BIAS_CORRECTION, where, float(before.mean()), float(after.mean()), error, len(gain), kept)
    ours = context.part(0.5, 0.9)
    if not kept:
        return CorrectedEngine(engine if engine is not None else _engine(found, backend, context.scratch, ours), correction)
    better = corrected if corrected is not None else _engine(found, backend, folder, ours)
    plain = functools.partial(_engine, found, backend, context.scratch, context.part(0.9, 1.0)) if engine is None else lambda: engine
    return CorrectedEngine(better, correction, context.workspace.write_arrays(name, **shifts), plain)


def _freeing(inspection: Inspection, context: StageContext) -> Callable[[], None]:
    """Return what gives back the memory of the job's models that were let go of."""
    return functools.partial(return_dropped_models, model_size_bytes(context.workspace.path(inspection.model.file)))


class _Plan:
    """An assignment and all that its explicit models are made from, read once."""

    def __init__(self, recipe: EngineRecipe, backend: Backend, workspace: Workspace) -> None:
        self._found = recipe.inspection
        self._quantized = recipe.precisions
        self._backend = backend
        self._ranges = read_ranges(recipe.calibrated, workspace).ranges
        self._model = read_model(workspace.path(self._found.model.file))
        self.correction_table = read_corrections(recipe.calibrated, workspace)
        self._levels = read_levels(self.correction_table, workspace)
        self.locations = bias_locations(self._model, self._found.model.layers)

    def explicit(self, shifts: Mapping[str, Floats] | None = None) -> onnx.ModelProto:
        """Return the explicit model, with corrected biases if ``shifts``, (channels,) by layer, are given."""
        model = self._model if shifts is None else with_corrected_biases(self._model, self.locations, shifts)
        found, target = self._found, self._backend.capabilities
        plan = ExplicitPlan(
            model,
            found.model.layers,
            self._quantized,
            self._ranges,
            found.model.scheme,
            found.baseline.precision if target.dialect.has_float_types else target.baseline,
            self.correction_table.smooth_quants,
            self._levels,
            found.baseline.float_nodes,
        )
        return target.dialect.explicit(plan)


def _write(explicit: onnx.ModelProto, backend: Backend, folder: Path) -> None:
    """Write an explicit model into ``folder``; its engine is built from the file, with as few models in memory as can be."""
    target = backend.capabilities
    target.dialect.check(explicit, compute_capability=target.compute_capability)
    save_model(explicit, folder / EXPLICIT_NAME)


def _engine(inspection: Inspection, backend: Backend, folder: Path, context: StageContext) -> Engine:
    """Return the engine of the explicit model in ``folder``, beside that model."""
    return backend.build(
        folder / EXPLICIT_NAME,
        folder / backend.capabilities.engine_name,
        shapes=inspection.calls.engine_shapes,
        values=inspection.calls.engine_values,
        profiles=inspection.calls.engine_profiles,
        on_progress=lambda share, phase: context.progress(share, f"building: {phase}"),
    )


def _loss(
    opened: Runner, data: CorrectionData, held_out: SampleShare, inspection: Inspection, backend: Backend, workspace: Workspace
) -> NDArray[np.float64]:
    """Return the loss of an open engine on each calibration sample that nothing was fitted to, (samples,), and close it."""
    arrays = workspace.read_arrays(data.reference)
    reference = tuple(arrays[str(index)] for index in range(len(arrays)))
    compared = inspection.model.outputs
    with closing(opened) as runner:
        judged = ComparedOutputs(runner, compared.compared, inspection.model.axes)
        outputs = run_all(judged, held_out, batch=inspection.calls.scored_batch, workers=run_workers(backend))
        return losses(compared.compared_forms, reference, outputs, compared.compared_weights)


def _floats(arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, Floats]:
    return {name: np.asarray(array, dtype=np.float32) for name, array in arrays.items()}


EXPLICIT_NAME = "model.explicit.onnx"
BUILD_ROUTE = "onnx_trt_optimizer.build_route"  # key in the explicit model's metadata
