"""The stages that probe the float model: ``sensitivity``, ``hessian`` and ``interactions``.

Sensitivity is cut by samples: each call probes layer precisions on its share and leaves the per-sample losses and Gram sums in a file,
so that a kill costs one share. The first share probes all of them, a later one those whose place around the budget's boundary is open.

A share, and the tests of pairs, can be split further, into parts that several processes measure: what each call of the model gave is kept
apart and put together in the order of the samples, so that the result is the same to the last bit. The first probes of traces are split by
layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibration.algorithms.bias_correction import bias_locations
from calibration.data.dataset import CalibrationSet, SampleShare, load_saved
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.onnx_model.weights_in_file import read_prepared
from calibration.process.worker_threads import processors
from calibration.sensitivity.adaptive_sampling import undecided_losses
from calibration.sensitivity.hessian_trace import FIRST_PROBES, probe_tensors, traces_from
from calibration.sensitivity.interactions import pair_losses, pair_tests, pairs_to_test
from calibration.sensitivity.layer_losses import LayerLosses, joined, measure_batches
from calibration.sensitivity.mean_inputs import MeanInputs
from calibration.sensitivity.perturbed_model import ReferenceModel
from calibration.sensitivity.records import TensorProbes, in_order
from engine_builder.records.calibrated import Calibrated, layer_precisions_of, read_corrections, read_model_record, read_ranges
from engine_builder.records.corrections import read_levels, read_shifts
from engine_builder.records.inspection import PreparedModel
from engine_builder.records.loss_files import join_batches, read_losses, write_batches, write_losses
from engine_builder.stage_io.measuring import (
    HessianRequest,
    HessianResult,
    InteractionsRequest,
    InteractionsResult,
    SensitivityRequest,
    SensitivityResult,
    paired_samples,
)
from engine_builder.workspace.workspace import StageContext, Workspace

HESSIAN_BATCHES = 4  # most probes of a tensor, each on samples of its own
HESSIAN_BATCH = 8
FEWEST_SAMPLES = 8  # that say enough of a loss for it to be left at that
PAIRS_PER_LAYER_PRECISION = 2


def sensitivity(request: SensitivityRequest, context: StageContext) -> SensitivityResult:
    """Probe layer precisions alone on a share of the calibration samples: all, or those that earlier shares leave open."""
    workspace = context.workspace
    prepared = read_model_record(request.of, workspace)
    wanted = layer_precisions_of(prepared.layers, request.of.eligible)
    name = f"layer-losses-{request.start}-{request.stop}.npz"
    if request.parts and (first := request.parts[0]).probed:
        losses = join_batches([part.losses for part in request.parts], wanted, workspace)
        return SensitivityResult(write_losses(losses, name, workspace), first.provider, first.probed)
    probed = frozenset() if request.parts else _open(request, wanted, workspace)
    if not probed:
        count = len(wanted)
        nothing = LayerLosses(wanted, np.zeros((0, count)), np.zeros((count, count)), np.zeros((count, count)))
        return SensitivityResult(write_losses(nothing, name, workspace), "", 0)
    share = SampleShare(load_saved(workspace.path(request.of.calibration)), np.arange(request.start, request.stop))
    reference = _reference(prepared, request.of, workspace)

    def report(done: int) -> None:
        context.progress(done / share.samples, f"{len(probed)} layer precisions on {done} of {share.samples} samples")

    batches = measure_batches(
        reference,
        prepared.probed.forms,
        wanted,
        share.batches(prepared.batch),
        only=probed,
        weights=prepared.outputs.weights,
        workers=processors(),
        on_batch=report,
    )
    part = f"part-of-{name}"
    written = write_batches(batches, part, workspace) if request.is_part else write_losses(joined(batches), name, workspace)
    return SensitivityResult(written, reference.provider.value, len(probed))


def hessian(request: HessianRequest, context: StageContext) -> HessianResult:
    """Measure the Hessian traces of every layer, on a few samples a probe: more probes where the budget's boundary depends on them.

    A part makes the probes that every tensor has, of some layers. Which tensors need more is seen when all parts are there.
    """
    workspace = context.workspace
    prepared = read_model_record(request.of, workspace)
    samples = load_saved(workspace.path(request.of.calibration))
    reference = _reference(prepared, request.of, workspace)
    size = prepared.batch if prepared.is_batch_fixed else max(1, min(HESSIAN_BATCH, samples.samples // HESSIAN_BATCHES))
    batches = [samples.take(np.arange(i * size, (i + 1) * size) % samples.samples).feeds() for i in range(HESSIAN_BATCHES)]
    eligible = request.of.eligible
    if request.layers is not None:
        eligible = dict(list(eligible.items())[slice(*request.layers)])
        batches = batches[: HESSIAN_BATCHES if request.allowed_loss is None else FIRST_PROBES]
    done = [workspace.read_value(TensorProbes, part.probes) for part in request.parts if part.probes is not None]
    probes = probe_tensors(
        reference,
        prepared.probed.forms,
        prepared.scheme,
        read_ranges(request.of, workspace).ranges,
        batches,
        seed=request.seed,
        most=prepared.batch,
        precisions=request.precisions,
        eligible=eligible,
        weights=prepared.outputs.weights,
        allowed=request.allowed_loss,
        means=_mean_inputs(reference, prepared, request.of, samples, workspace),
        workers=processors(),
        on_batch=lambda done: context.progress(done / len(batches), f"Hessian probe {done} of {len(batches)}"),
        before=in_order(done) if done else None,
    )
    provider = request.parts[0].provider if request.parts else reference.provider.value
    if request.layers is not None:
        start, stop = request.layers
        return HessianResult((), 0, provider, workspace.write_value(f"part-of-traces-{start}-{stop}.json", probes))
    traces = traces_from(probes)
    most = max((trace.probes for trace in traces), default=0)
    return HessianResult(traces, min(size * most, samples.samples), provider)


def interactions(request: InteractionsRequest, context: StageContext) -> InteractionsResult:
    """Test the pairs that matter most exactly, on the first samples of the sensitivity probes."""
    workspace = context.workspace
    prepared = read_model_record(request.of, workspace)
    wanted = layer_precisions_of(prepared.layers, request.of.eligible)
    layer_losses = read_losses(request.losses, wanted, workspace)
    pairs = pairs_to_test(layer_losses, prepared.layers, prepared.scheme, PAIRS_PER_LAYER_PRECISION * len(wanted), request.allowed_loss)
    start, stop = request.samples or (0, paired_samples(layer_losses.samples, prepared.batch))
    counts = layer_losses.counts.tolist()
    alone = {item: layer_losses.loss[: min(stop, known), index] for index, (item, known) in enumerate(zip(wanted, counts, strict=True))}
    if request.parts:
        together = np.concatenate([workspace.read_arrays(part.losses)["losses"] for part in request.parts if part.losses is not None])
        return InteractionsResult(pair_tests(pairs, together, alone), request.parts[0].provider)
    share = load_saved(workspace.path(request.of.calibration)).take(np.arange(start, stop))
    batches = list(share.batches(prepared.batch))
    reference = _reference(prepared, request.of, workspace)
    losses = pair_losses(
        reference,
        prepared.probed.forms,
        prepared.layers,
        pairs,
        batches,
        [min(len(alone[one]) for one in pair) for pair in pairs],
        first=start,
        weights=prepared.outputs.weights,
        workers=processors(),
        on_batch=lambda done: context.progress(done / len(batches), f"{len(pairs)} pairs on {done} of {len(batches)} batches"),
    )
    if request.is_part:
        return InteractionsResult((), reference.provider.value, workspace.write_arrays(f"part-of-pairs-{start}-{stop}.npz", losses=losses))
    return InteractionsResult(pair_tests(pairs, losses, alone), reference.provider.value)


def _open(request: SensitivityRequest, wanted: Sequence[LayerPrecision], workspace: Workspace) -> frozenset[LayerPrecision]:
    """Return what is to be probed: once more samples would not decide on a layer precision, it is not probed again."""
    if not request.earlier or request.allowed_loss is None:
        return frozenset(wanted)
    known = read_losses(request.earlier, wanted, workspace)
    if known.samples < FEWEST_SAMPLES:
        return frozenset(wanted)
    still = {item for item, count in zip(wanted, known.counts.tolist(), strict=True) if count == known.samples}
    losses = dict(zip(wanted, (tuple(values.tolist()) for values in known.levelled), strict=True))
    return undecided_losses(losses, request.allowed_loss) & still


def _reference(prepared: PreparedModel, of: Calibrated, workspace: Workspace) -> ReferenceModel:
    corrections = read_corrections(of, workspace)
    return ReferenceModel(
        read_prepared(workspace.path(prepared.file)),
        prepared.layers,
        read_ranges(of, workspace).ranges,
        prepared.scheme,
        corrections.smooth_quants,
        levels=read_levels(corrections, workspace),
        shifts=read_shifts(corrections, workspace),
        axes=prepared.probed.axes,
        outputs=prepared.probed.names,
    )


def _mean_inputs(
    reference: ReferenceModel, prepared: PreparedModel, of: Calibrated, samples: CalibrationSet, workspace: Workspace
) -> MeanInputs | None:
    """Return how changes of weights shift means, over the samples that biases are corrected on; None where they are not."""
    correction = read_corrections(of, workspace).correction
    if correction is None:
        return None
    share = SampleShare(samples, np.array(correction.fitted, dtype=np.int64))
    locations = bias_locations(reference.graph.model, prepared.layers)
    return MeanInputs(reference, locations, share.batches(min(prepared.batch, share.samples)))
