"""The stage ``inspect``: reads the user's files, checks them, and writes them in the form that every later stage reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx

from calibration.accuracy.metrics import OutputKind
from calibration.accuracy.own_metrics.opened import open_own_metric
from calibration.data.dataset import CalibrationSet
from calibration.data.input_axes import possible_axes
from calibration.data.settings import make_constant, note_of
from calibration.graph.layers import LayerKind, concrete_shapes, find_layers
from calibration.graph.weightless import big_weights, copy_without
from calibration.number_formats.precision import Precision
from calibration.onnx_model.model_io import input_specs, output_specs, read_model, save_model
from calibration.process.memory import return_dropped_models
from calibration.process.worker_threads import processors
from calibration.sequences.state_pairs import states_of
from calibration.sequences.step_sequences import StepSequences, as_wholes, steps_of
from engine_builder.backends.base import Backend
from engine_builder.backends.registry import backend_for, targets_of
from engine_builder.closed_loop.chosen_steps import check_growth, chosen_steps
from engine_builder.closed_loop.intake import (
    judged_kinds,
    judged_steps,
    loop_notes,
    loop_of,
    pairs_in_words,
    with_states,
    with_states_as_values,
)
from engine_builder.closed_loop.run_scores import scores_of_runs
from engine_builder.engines.builder_check import prepare_for
from engine_builder.engines.eligible_layers import may_round_by_call
from engine_builder.engines.equalized_model import equalized
from engine_builder.engines.exact_folding import NOT_EXACT, is_exact, unfolded
from engine_builder.engines.job_scheme import job_scheme
from engine_builder.errors import BuildError
from engine_builder.evaluation.batch_sizes import engine_sizes, fixed_batch, profile_values, timing_batch, timing_shapes, whole_batches
from engine_builder.evaluation.data_warnings import answer_warnings, label_warnings, reading_notes, sample_warnings
from engine_builder.evaluation.float_scores import FloatModel
from engine_builder.evaluation.given_samples import each_once, given_samples, kept_in_file
from engine_builder.evaluation.measurement import decided
from engine_builder.evaluation.model_calls import settled_batch
from engine_builder.evaluation.outputs import check_output_names, is_told_of_rows, judged_outputs, output_kinds, rows_only
from engine_builder.evaluation.run_samples import run_judged
from engine_builder.evaluation.scoring import (
    check_scores,
    is_per_sample,
    labelled_tokens,
    new_scorer,
    outputs_for_metric,
    unused_labels,
    whole_outputs,
)
from engine_builder.records.inspection import Baseline, Calls, Inspection, ModelOutputs, PreparedModel, Reference, Samples
from engine_builder.records.probed_outputs import in_loss, probed_outputs
from engine_builder.stage_io.measuring import InspectRequest, InspectResult
from engine_builder.workspace.model_files import model_size_bytes, move_model
from engine_builder.workspace.workspace import FileRef, StageContext, Workspace

BATCH_BYTES = 24 * 2**20
LARGEST_BATCH = 64
MOST_OF_A_MESSAGE = 300  # characters of the runtime's own words


def inspect(request: InspectRequest, context: StageContext, *, folds: bool = True) -> InspectResult:
    """Return the inspection of a job, and the model that engines must beat: the user's own file where the runtime loads it.

    Args:
        request: The user's files and settings.
        context: Where files go.
        folds: Whether constants around layers are folded into them; where that turns out not to be exact, all begins again without.

    Raises:
        InputError: Something about the user's files or settings does not fit.
    """
    workspace, files, settings = context.workspace, request.files, request.settings
    custom = None if files.metric_model is None else open_own_metric(workspace.path(files.metric_model))
    backend = backend_for(settings.target, settings.gpu, table=targets_of(context))
    capabilities = backend.capabilities
    model = read_model(workspace.path(files.model))
    context.progress(0.1, "model read")
    specs = input_specs(model)
    if len(specs) == 1:  # else some may be settings, on which a branch with the layers may hang
        prepared = prepare_for(backend, model, context.scratch, folds=folds)  # where it is refused, no need for samples
    read_notes: list[str] = []
    specials: list[str] = []
    given, judged_on, same = given_samples(files, specs, output_specs(model), settings, workspace, read_notes, specials)
    given, judged_on = (kept_in_file(one, context.scratch / f"{name}.npz") for name, one in (("given", given), ("judged_on", judged_on)))
    calibration, validation = steps_of(given), steps_of(judged_on)
    if calibration.settings:
        make_constant(model, calibration.settings)
        read_notes += [note_of(name, value) for name, value in calibration.settings.items()]
    if calibration.settings or len(specs) > 1:
        prepared = prepare_for(backend, model, context.scratch, folds=folds)
    varying = [spec for spec in specs if spec.name not in calibration.settings]
    fixed = fixed_batch(varying, calibration.axes)
    warnings = sample_warnings(model, as_wholes(given), as_wholes(judged_on), is_held_out=files.validation is None, batch=fixed)
    once: list[str] = []
    judged_on = each_once(judged_on, given, once, specials)
    validation = steps_of(judged_on)
    context.progress(0.2, f"{calibration.samples} calibration and {validation.samples} validation samples")
    timed, outputs = timing_shapes(specs, settings, validation), output_specs(model)
    del model
    return_dropped_models(model_size_bytes(workspace.path(files.model)))
    one_call = calibration.take(np.arange(fixed or 1) % calibration.samples).feeds()
    shapes = {name: array.shape for name, array in one_call.items()}
    layers = find_layers(prepared.model, shapes)
    if folds and (even := equalized(prepared, layers, calibration, fixed or 1)) is not prepared:
        prepared, layers = even, find_layers(even.model, shapes)
    notes = [*prepared.notes, *([] if folds else [NOT_EXACT]), *read_notes, *once]
    save_model(prepared.model, context.scratch / "prepared.onnx")
    prepared_ref = move_model(context.scratch / "prepared.onnx", "prepared.onnx", workspace)
    batch = fixed or probe_batch(prepared.model, shapes)
    by_call = may_round_by_call(prepared.model, layers, capabilities)
    guesses = possible_axes(varying, {name: array.shape for name, array in calibration.inputs.items()})
    float_type, graph = prepared.float_type, copy_without(prepared.model, big_weights(prepared.model))
    folded, is_changed, constants = prepared.folded, bool(prepared.folded) or prepared.is_equalized, calibration.settings
    del prepared
    return_dropped_models(model_size_bytes(context.workspace.path(prepared_ref)))

    baseline_ref, baseline_type = _baseline(files.model, float_type, prepared_ref, backend, settings.threads, workspace, notes)
    reference_ref = baseline_ref if baseline_type is Precision.FP32 else prepared_ref
    names = tuple(spec.name for spec in outputs)
    float_model = FloatModel(workspace.path(reference_ref), names, specials)
    what = "held-out calibration samples" if files.validation is None else "validation set"
    check_output_names(outputs, settings.outputs)
    per_call = timing_batch(specs, settings, validation)
    calls = float_model.calls(varying, names, validation, guesses, timed=per_call, most=batch, what=what)
    notes += calls.notes
    calibration, validation = (replace(one, axes=calls.inputs) for one in (calibration, validation))
    loop, is_fixed = loop_of(judged_on, names), calls.batch is not None
    states = judged_on.states if isinstance(judged_on, StepSequences) else states_of(settings.state, specs, outputs)
    check_growth(loop, capabilities)
    cached: int | None = None  # in a cache that grows, where it is timed
    if (fitted := loop_of(given, names)) is not None:
        context.progress(
            0.25, f"model with a state ({pairs_in_words(states)}): the float model runs {given.samples} sequences in closed loop"
        )
        chosen = chosen_steps(calibration, fitted, settings.samples, settings.seed)
        notes.append(chosen.note(calibration.samples))
        cached = chosen.cached
        calibration = float_model.unrolled(
            chosen.steps, chosen.loop, chosen.wanted, calls.batch or batch, "calibration set", is_batch_fixed=is_fixed
        )
    if loop is None:
        warnings += float_model.single_step_warnings(validation, states, calls)
    else:  # what a timed call is made from
        validation = with_states(validation, {name: calibration.inputs[name][:1] for name in (*loop.states, *loop.caches.followers)})
    per_call = settled_batch(calls, settings, timing_batch(specs, settings, validation))
    timed = timing_shapes(specs, settings, validation, per_call)
    if calls.batch is not None:
        batch, calibration = calls.batch, whole_batches(calibration, calls.batch)
    together = per_call if by_call and calls.batch is None else batch  # samples in a call of what engines are held against
    kinds = output_kinds(
        graph,
        outputs,
        calls.outputs,
        settings.output_kinds,
        is_labelled=is_per_sample(validation.labels),
        notes=notes,
        tokens=labelled_tokens(validation.labels),
    )
    kinds = with_states_as_values(kinds, loop, [names.index(name) for name in settings.output_kinds])
    is_labelled = validation.labels is not None
    read = whole_outputs(settings, names, kinds, outputs, calls.outputs)
    if custom is not None:
        read = outputs_for_metric(custom, names, kinds, calls.outputs, outputs, is_labelled=is_labelled)
    seconds = float_model.sample_seconds(validation, batch, what)
    float_model.check_timed_call(validation, timed)
    compared = [index for index, kind in enumerate(kinds) if kind is not OutputKind.IGNORE or index in read]
    for done in float_model.check(calibration, batch, compared, calls.axes, "calibration set"):
        context.progress(0.3 + 0.3 * done / calibration.samples, f"float model runs on {done} of {calibration.samples} calibration samples")
    if is_changed:
        plain, form = float_model, FloatModel(workspace.path(prepared_ref), names, specials)
        if reference_ref == prepared_ref:
            plain = FloatModel(unfolded(workspace.path(files.model), constants, context.scratch), names, specials)
        if not is_exact(form, plain, calibration, batch=batch, compared=compared, axes=calls.axes, is_batch_fixed=is_fixed):
            return inspect(request, context, folds=False)
        del plain, form
    reference = float_model.outputs(validation, together, compared, calls.axes, what, loop=loop, is_batch_fixed=is_fixed)
    notes += [f"{held}: taken as it is, since no output of the float model is NaN" for held in specials]
    by_structure = judged_kinds({index: kinds[index] for index in compared}, loop)
    judged_as = judged_outputs(
        graph,
        [names[index] for index in compared],
        by_structure,
        reference,
        [calls.axes.outputs[index] for index in compared],
        settings.output_kinds,
        validation.inputs,
        labels=validation.labels,
    )
    used = rows_only(compared, read, judged_as, settings.metric)
    compared, reference = [compared[place] for place in used], tuple(reference[place] for place in used)
    by_structure, judged_as = tuple(by_structure[place] for place in used), tuple(judged_as[place] for place in used)
    notes = [note for note in notes if not is_told_of_rows(note, judged_as)]
    scorer = new_scorer(settings, [names[index] for index in compared], by_structure, reference, validation, custom, judged_as)
    metric, scored = scorer.metric, [reference[index] for index in scorer.scored]
    kinds, parts = in_loss(kinds, compared, judged_as, metric)
    read = tuple(index for index in compared if kinds[index] is OutputKind.IGNORE)
    notes += reading_notes(scorer, reference, {} if loop is not None else validation.inputs)
    unread = [name for name in scorer.unread if loop is None or name not in states]
    notes += [f"the metric {metric} does not read the output '{name}': no budget covers it" for name in unread]
    notes += loop_notes(judged_on, metric, scored, cached) if isinstance(judged_on, StepSequences) else ()
    step_scores = scorer(reference, reference, validation)
    scores = scores_of_runs(step_scores, loop, metric, scored)
    check_scores(metric, scores)
    warnings += answer_warnings(scorer, reference)
    if (unused := unused_labels(scorer, validation, reference)) is not None:
        warnings += () if settings.metric is not None else (unused,)
        notes += [unused] if settings.metric is not None else []
    judged = judged_steps(loop, validation.samples)
    are_all = len(judged) == validation.samples  # in their order: no copies of them
    warnings += label_warnings(
        scorer,
        step_scores[judged],
        reference if are_all else [array[judged] for array in reference],
        validation if are_all else validation.take(judged),
        lambda samples: float_model.outputs(samples, together, compared, calls.axes, what),
        allow_chance=settings.allow_chance,
        sample_seconds=seconds,
        known=warnings,
    )
    float_model.close()
    baseline_scores = scores
    if baseline_ref != reference_ref:
        context.progress(0.8, "baseline runs")
        baseline = backend.open(workspace.path(baseline_ref), threads=settings.threads)
        answers = run_judged(baseline, validation, loop, compared=compared, axes=calls.axes, batch=together, is_batch_fixed=is_fixed)
        baseline_scores = scores_of_runs(scorer(answers, reference, validation), loop, metric, scored)
    weights = tuple(settings.output_weights.get(name, 1.0) for name in names)
    record = PreparedModel(
        file=prepared_ref,
        float_type=float_type,
        layers=layers,
        outputs=ModelOutputs(names, kinds, weights, read, parts),
        probed=probed_outputs(graph, names, kinds, calls.axes, parts),
        axes=calls.axes,
        batch=batch,
        is_batch_fixed=is_fixed,
        scheme=job_scheme(settings.exact_on, capabilities),
    )
    samples = Samples(
        calibration=_save(calibration, "calibration.samples.npz", context),
        calibration_samples=calibration.samples,
        validation=_save(validation, "validation.samples.npz", context),
        validation_samples=judged_on.samples,
        held_out=files.validation is None,
        shared_data=same,
    )
    judged_by = Reference(
        outputs=workspace.write_arrays("reference.npz", **{str(i): array for i, array in enumerate(reference)}),
        scores=workspace.write_arrays("reference_scores.npz", scores=scores),
        metric=metric,
        scored=scorer.scored,
        label_names=scorer.label_names,
        metric_model=files.metric_model,
        judged=judged_as,
        measure=scorer.options,
    )
    sizes, profiles = engine_sizes(specs, settings, timed, validation, batch=per_call, is_fixed=is_fixed)
    engine_calls = Calls(
        timed_shapes=timed,
        timed_batch=per_call,
        scored_batch=together if capabilities.parallel_runs else per_call,
        engine_shapes=sizes,
        engine_values=profile_values(varying, timed, validation, calibration),
        engine_profiles=profiles,
    )
    beaten = Baseline(baseline_type, workspace.write_arrays("baseline_scores.npz", scores=baseline_scores))
    inspection = Inspection(record, samples, judged_by, beaten, engine_calls, loop, tuple(notes), warnings, folded)
    return InspectResult(
        inspection=workspace.write_value("inspection.json", inspection),
        model=workspace.write_value("model.json", record),
        calibration=samples.calibration,
        scores=judged_by.scores,
        baseline=baseline_ref,
        files=(
            *((files.metric_model,) if files.metric_model is not None else ()),
            prepared_ref,
            samples.validation,
            judged_by.outputs,
            beaten.scores,
        ),
        layers=tuple(layer.name for layer in layers),
        residual_adds=tuple(layer.name for layer in layers if layer.kind is LayerKind.RESIDUAL_ADD),
        metric=metric,
        scored_kinds=tuple(record.probed.kinds[record.outputs.compared[index]] for index in judged_by.scored),
        samples=calibration.samples,
        decided=None if loop is not None else decided(scorer, [kinds[index] for index in compared], reference, validation),
        batch=batch,
        processors=processors(),
        sample_seconds=seconds,
        timed_batch=per_call,
        judged=tuple(one for one in judged_as if one.name not in inspection.state_outputs),
        is_folded_apart=capabilities.is_own_baseline and baseline_ref != prepared_ref and any(one.saved for one in folded),
    )


def _baseline(
    model: FileRef,
    float_type: Precision,
    prepared_ref: FileRef,
    backend: Backend,
    threads: int,
    workspace: Workspace,
    notes: list[str],
) -> tuple[FileRef, Precision]:
    """Return the baseline's file and what it computes in: the user's own file, or the prepared model where the runtime cannot load that."""
    if not backend.capabilities.is_own_baseline:
        return prepared_ref, Precision.FP32  # until the stage ``baseline`` has built it
    try:
        backend.open(workspace.path(model), threads=threads).close()
    except BuildError as error:
        why = " ".join(error.detail.replace(f"{workspace.root}/", "").split())[:MOST_OF_A_MESSAGE]
        notes.append(f"the uploaded file does not load, so the same model in its prepared form is the baseline: {why}")
        return prepared_ref, Precision.FP32
    if float_type is not Precision.FP32:
        notes.append(f"the uploaded model computes in {float_type}: it is the baseline, accuracy is relative to float32")
    return model, float_type


def probe_batch(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return a batch, a power of two, of which the four largest activations together stay within BATCH_BYTES if one sample's do.

    Args:
        model: The prepared model.
        shapes: Shape of each input, one sample in a call.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    found = [shape for name, shape in concrete_shapes(model, shapes).items() if name not in constants]
    sizes = sorted(4 * math.prod(size for size in shape if isinstance(size, int)) for shape in found)
    fitting = int(np.clip(BATCH_BYTES // max(sum(sizes[-4:]), 1), 1, LARGEST_BATCH))
    return 1 << (fitting.bit_length() - 1)  # so that samples by the power of two are whole batches


def _save(samples: CalibrationSet, name: str, context: StageContext) -> FileRef:
    samples.save(context.scratch / name)
    return context.workspace.copy(context.scratch / name, name)
