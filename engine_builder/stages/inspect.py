"""The stage ``inspect``: reads the user's files, checks them, and writes them in the form that every later stage reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx

from calibration.accuracy.kinds.part import JudgedOutput, Part
from calibration.accuracy.metric_model import MetricModel
from calibration.accuracy.metrics import Metric, OutputKind, Truth
from calibration.data.dataset import MIN_SAMPLES, CalibrationSet, read_samples, split_held_out
from calibration.data.input_axes import possible_axes
from calibration.data.settings import check_same_settings, make_constant, note_of
from calibration.errors import InvalidCalibrationSetError
from calibration.graph.layers import LayerKind, concrete_shapes, find_layers
from calibration.graph.weightless import big_weights, copy_without
from calibration.number_formats.precision import Precision
from calibration.onnx_model.model_io import TensorSpec, input_specs, output_specs, read_model, save_model
from calibration.process.memory import return_dropped_models
from calibration.process.worker_threads import processors
from engine_builder.backends.base import Backend
from engine_builder.backends.registry import backend_for, targets_of
from engine_builder.config.inspect_settings import InspectSettings
from engine_builder.engines.builder_check import prepare_for
from engine_builder.engines.job_scheme import job_scheme
from engine_builder.errors import BuildError
from engine_builder.evaluation.batch_sizes import fixed_batch, profile_shapes, timing_batch, timing_shapes, whole_batches
from engine_builder.evaluation.data_warnings import answer_warnings, label_warnings, sample_warnings
from engine_builder.evaluation.float_scores import FloatModel
from engine_builder.evaluation.measurement import decided
from engine_builder.evaluation.model_calls import settled_batch
from engine_builder.evaluation.outputs import ComparedOutputs, check_output_names, judged_outputs, loss_kind, loss_parts, output_kinds
from engine_builder.evaluation.run_samples import run_all
from engine_builder.evaluation.scoring import check_scores, is_per_sample, labelled_tokens, new_scorer, outputs_for_metric, whole_outputs
from engine_builder.records.inspection import Baseline, Calls, Inspection, ModelOutputs, PreparedModel, Reference, Samples
from engine_builder.records.probed_outputs import probed_outputs
from engine_builder.stage_io.measuring import InspectRequest, InspectResult, JobFiles
from engine_builder.workspace.model_files import keep_model, model_size_bytes
from engine_builder.workspace.workspace import FileRef, StageContext, Workspace

BATCH_BYTES = 24 * 2**20
LARGEST_BATCH = 64
MIN_CALIBRATION_SAMPLES = 2
MOST_OF_A_MESSAGE = 300  # characters of the runtime's own words


def inspect(request: InspectRequest, context: StageContext) -> InspectResult:
    """Return the inspection of a job, and the model that engines must beat: the user's own file where the runtime loads it.

    Args:
        request: The user's files and settings.
        context: Where files go.

    Raises:
        InputError: Something about the user's files or settings does not fit.
    """
    workspace, files, settings = context.workspace, request.files, request.settings
    custom = None if files.metric_model is None else MetricModel(workspace.path(files.metric_model))
    backend = backend_for(settings.target, settings.gpu, table=targets_of(context))
    capabilities = backend.capabilities
    model = read_model(workspace.path(files.model))
    context.progress(0.1, "model read")
    specs = input_specs(model)
    if len(specs) == 1:  # else some may be settings, on which a branch with the layers may hang
        prepared = prepare_for(backend, model, context.scratch)  # where it is refused, no need for samples
    read_notes: list[str] = []
    specials: list[str] = []
    calibration, validation, same = _samples(files, specs, settings, workspace, read_notes, specials)
    if calibration.settings:
        make_constant(model, calibration.settings)
        read_notes += [note_of(name, value) for name, value in calibration.settings.items()]
    if calibration.settings or len(specs) > 1:
        prepared = prepare_for(backend, model, context.scratch)
    notes = [*prepared.notes, *read_notes]
    varying = [spec for spec in specs if spec.name not in calibration.settings]
    fixed = fixed_batch(varying, calibration.axes)
    warnings = sample_warnings(model, calibration, validation, is_held_out=files.validation is None, batch=fixed)
    context.progress(0.2, f"{calibration.samples} calibration and {validation.samples} validation samples")
    timed = timing_shapes(specs, settings, validation)
    one_call = calibration.take(np.arange(fixed or 1) % calibration.samples).feeds()
    shapes = {name: array.shape for name, array in one_call.items()}
    layers = find_layers(prepared.model, shapes)
    save_model(prepared.model, context.scratch / "prepared.onnx")
    prepared_ref = keep_model(context.scratch / "prepared.onnx", "prepared.onnx", workspace)
    batch = fixed or probe_batch(prepared.model, shapes)
    guesses = possible_axes(varying, {name: array.shape for name, array in calibration.inputs.items()})
    outputs = output_specs(model)
    float_type, graph = prepared.float_type, copy_without(prepared.model, big_weights(prepared.model))
    del model, prepared
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
    per_call = settled_batch(calls, settings, timing_batch(specs, settings, validation))
    timed = timing_shapes(specs, settings, validation, per_call)
    if calls.batch is not None:
        batch, calibration = calls.batch, whole_batches(calibration, calls.batch)
    kinds = output_kinds(
        graph,
        outputs,
        calls.outputs,
        settings.output_kinds,
        is_labelled=is_per_sample(validation.labels),
        notes=notes,
        tokens=labelled_tokens(validation.labels),
    )
    is_labelled = validation.labels is not None
    read = whole_outputs(settings, names, kinds, outputs, calls.outputs)
    if custom is not None:
        read = outputs_for_metric(custom, names, kinds, calls.outputs, is_labelled=is_labelled)
    seconds = float_model.sample_seconds(validation, batch, what)
    float_model.check_timed_call(validation, timed)
    compared = [index for index, kind in enumerate(kinds) if kind is not OutputKind.IGNORE or index in read]
    for done in float_model.check(calibration, batch, compared, calls.axes, "calibration set"):
        context.progress(0.3 + 0.3 * done / calibration.samples, f"float model runs on {done} of {calibration.samples} calibration samples")
    reference = float_model.outputs(validation, batch, compared, calls.axes, what)
    notes += [f"{held}: taken as it is, since no output of the float model is NaN" for held in specials]
    by_structure = [kinds[index] for index in compared]
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
    scorer = new_scorer(settings, [names[index] for index in compared], by_structure, reference, validation, custom, judged_as)
    metric = scorer.metric
    kinds, parts = _in_loss(kinds, compared, judged_as, metric)
    reading = scorer.reading(reference)
    notes += [] if reading is None else [reading]
    notes += [f"the metric {metric} does not read the output '{name}': no budget covers it" for name in scorer.unread]
    scores = scorer(reference, reference, validation)
    check_scores(metric, scores)
    warnings += answer_warnings(scorer, reference)
    warnings += label_warnings(
        scorer,
        scores,
        reference,
        validation,
        lambda samples: float_model.outputs(samples, batch, compared, calls.axes, what),
        allow_chance=settings.allow_chance,
        sample_seconds=seconds,
        known=warnings,
    )
    baseline_scores = scores
    if baseline_ref != reference_ref:
        context.progress(0.8, "baseline runs")
        baseline = backend.open(workspace.path(baseline_ref), threads=settings.threads)
        runner = ComparedOutputs(baseline, compared, calls.axes)
        baseline_scores = scorer(run_all(runner, validation, batch=batch), reference, validation)
    weights = tuple(settings.output_weights.get(name, 1.0) for name in names)
    record = PreparedModel(
        file=prepared_ref,
        float_type=float_type,
        layers=layers,
        outputs=ModelOutputs(names, kinds, weights, read, parts),
        probed=probed_outputs(graph, names, kinds, calls.axes, parts),
        axes=calls.axes,
        batch=batch,
        is_batch_fixed=calls.batch is not None,
        scheme=job_scheme(settings.exact_on, capabilities),
    )
    samples = Samples(
        calibration=_save(calibration, "calibration.samples.npz", context),
        calibration_samples=calibration.samples,
        validation=_save(validation, "validation.samples.npz", context),
        validation_samples=validation.samples,
        held_out=files.validation is None,
        shared_data=same,
    )
    judged = Reference(
        outputs=workspace.write_arrays("reference.npz", **{str(i): array for i, array in enumerate(reference)}),
        scores=workspace.write_arrays("reference_scores.npz", scores=scores),
        metric=metric,
        scored=scorer.scored,
        label_names=scorer.label_names,
        metric_model=files.metric_model,
        judged=judged_as,
        measure=scorer.options,
    )
    engine_calls = Calls(
        timed_shapes=timed,
        timed_batch=per_call,
        scored_batch=batch if capabilities.parallel_runs else per_call,
        engine_shapes=profile_shapes(specs, settings, timed, validation, is_fixed=calls.batch is not None),
    )
    beaten = Baseline(baseline_type, workspace.write_arrays("baseline_scores.npz", scores=baseline_scores))
    inspection = Inspection(record, samples, judged, beaten, engine_calls, tuple(notes), warnings)
    return InspectResult(
        inspection=workspace.write_value("inspection.json", inspection),
        model=workspace.write_value("model.json", record),
        calibration=samples.calibration,
        scores=judged.scores,
        baseline=baseline_ref,
        files=(
            *((files.metric_model,) if files.metric_model is not None else ()),
            prepared_ref,
            samples.validation,
            judged.outputs,
            beaten.scores,
        ),
        layers=tuple(layer.name for layer in layers),
        residual_adds=tuple(layer.name for layer in layers if layer.kind is LayerKind.RESIDUAL_ADD),
        metric=metric,
        scored_kinds=tuple(record.probed.kinds[record.outputs.compared[index]] for index in judged.scored),
        samples=calibration.samples,
        decided=decided(scorer, [kinds[index] for index in compared], reference, validation),
        batch=batch,
        processors=processors(),
        sample_seconds=seconds,
        judged=judged_as,
    )


def _in_loss(
    kinds: Sequence[OutputKind], compared: Sequence[int], judged: Sequence[JudgedOutput], metric: Metric
) -> tuple[tuple[OutputKind, ...], tuple[tuple[Part, ...], ...]]:
    """Return the kind of each output in the loss, and its parts where the loss is that of several."""
    taken = {index: one for index, one in zip(compared, judged, strict=True) if kinds[index] is not OutputKind.IGNORE}
    return (
        tuple(loss_kind(taken[index], kind, metric) if index in taken else kind for index, kind in enumerate(kinds)),
        tuple(loss_parts(taken[index], metric) if index in taken else () for index in range(len(kinds))),
    )


def _samples(
    files: JobFiles, specs: Sequence[TensorSpec], settings: InspectSettings, workspace: Workspace, notes: list[str], specials: list[str]
) -> tuple[CalibrationSet, CalibrationSet, bool]:
    """Return calibration samples, validation samples, and whether the two are the same file; ``specials`` gets what inputs hold."""
    any_labels = files.metric_model is not None or (settings.metric is not None and settings.metric.spec.truth is Truth.GIVEN)
    calibration = read_samples(workspace.path(files.calibration), specs, any_labels=any_labels)
    same = False
    specials += [f"calibration set: {held}" for held in calibration.specials]
    if files.validation is None:
        kept, held_out = split_held_out(calibration.samples, settings.seed)
        validation = calibration.take(held_out)
        calibration = calibration.take(kept)
        notes.append(f"no validation set: {len(held_out)} of the calibration samples were held out to measure accuracy on")
    else:
        validation = read_samples(workspace.path(files.validation), specs, any_labels=any_labels)
        check_same_settings(calibration.settings, validation.settings)
        same = files.validation.sha256 == files.calibration.sha256
        specials += () if same else (f"validation set: {held}" for held in validation.specials)
        if same:
            notes.append("calibration and validation are the same file: accuracy is measured on the samples that ranges were fitted to")
        total = calibration.samples if same else calibration.samples + validation.samples
        if total < MIN_SAMPLES:
            raise InvalidCalibrationSetError(
                f"{calibration.samples} calibration and {validation.samples} validation samples found, "
                f"at least {MIN_SAMPLES} different ones in all expected",
                fix="Upload more samples; a few hundred of each are usual.",
            )
    most = settings.samples
    if most is not None and most < calibration.samples:
        order = np.random.default_rng(settings.seed).permutation(calibration.samples)
        calibration = calibration.take(np.sort(order[:most]))
        notes.append(f"calibration.samples: {most} of the calibration samples used")
    if calibration.samples < MIN_CALIBRATION_SAMPLES:
        raise InvalidCalibrationSetError(
            f"{calibration.samples} calibration sample found, at least {MIN_CALIBRATION_SAMPLES} expected: a lone one has no spread",
            fix="Give more calibration samples, or raise calibration.samples; a few hundred are usual.",
        )
    return calibration, validation, same


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
