"""The stages that probe the float model: ``sensitivity``, ``hessian`` and ``interactions``.

Sensitivity is cut by samples: each call probes layer precisions on its share and leaves the per-sample losses and Gram sums in a file,
so that a kill costs one share. The first share probes all of them, a later one those whose place around the budget's boundary is open.

A share, and the tests of pairs, can be split further, into parts that several processes measure: what each call of the model gave is kept
apart and put together in the order of the samples, so that the result is the same to the last bit. The first probes of traces are split by
layers.

A part that is asked for on CUDA runs there as a whole, its own float pass included, and one of its probes runs again on the CPU: where that
says something else, the part has failed, like one that CUDA does not take.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from calibration.algorithms.bias_correction import bias_locations
from calibration.data.dataset import CalibrationSet, SampleShare, load_saved
from calibration.execution.onnxruntime_session import Array
from calibration.execution.provider import Provider
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.onnx_model.weights_in_file import read_prepared
from calibration.process.worker_threads import processors
from calibration.sensitivity.adaptive_sampling import undecided_losses
from calibration.sensitivity.hessian_trace import AGREEMENT, FIRST_PROBES, probe_tensors, traces_from
from calibration.sensitivity.interactions import pair_losses, pair_tests, pairs_to_test
from calibration.sensitivity.layer_losses import LayerLosses, joined, measure_batches
from calibration.sensitivity.means.mean_inputs import MeanInputs
from calibration.sensitivity.perturbed_model import ReferenceModel
from calibration.sensitivity.records import TensorProbes, by_tensor, in_order
from engine_builder.probing.lent_gpu import lent_gpu
from engine_builder.probing.spot_check import check_alike
from engine_builder.records.calibrated import (
    Calibrated,
    EligiblePrecisions,
    layer_precisions_of,
    read_corrections,
    read_model_record,
    read_ranges,
)
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
    parts_by_provider,
)
from engine_builder.workspace.workspace import StageContext, Workspace

T = TypeVar("T")

HESSIAN_BATCHES = 4  # most probes of a tensor, each on samples of its own
HESSIAN_BATCH = 8
FEWEST_SAMPLES = 8  # that say enough of a loss for it to be left at that
PAIRS_PER_LAYER_PRECISION = 2
CHECKED_SAMPLES = 8  # that a probe on CUDA is compared with the CPU's on, about


def sensitivity(request: SensitivityRequest, context: StageContext) -> SensitivityResult:
    """Probe layer precisions alone on a share of the calibration samples: all, or those that earlier shares leave open."""
    workspace = context.workspace
    prepared = read_model_record(request.of, workspace)
    wanted = layer_precisions_of(prepared.layers, request.of.eligible)
    name = f"layer-losses-{request.start}-{request.stop}.npz"
    if request.parts and (first := request.parts[0]).probed:
        losses = join_batches([part.losses for part in request.parts], wanted, workspace)
        return SensitivityResult(write_losses(losses, name, workspace), parts_by_provider(request.parts), first.probed)
    probed = frozenset() if request.parts else _open(request, wanted, workspace)
    if not probed:
        count = len(wanted)
        nothing = LayerLosses(wanted, np.zeros((0, count)), np.zeros((count, count)), np.zeros((count, count)))
        return SensitivityResult(write_losses(nothing, name, workspace), {}, 0)
    share = SampleShare(load_saved(workspace.path(request.of.calibration)), np.arange(request.start, request.stop))

    def report(done: int) -> None:
        context.progress(done / share.samples, f"{len(probed)} layer precisions on {done} of {share.samples} samples")

    def measured(
        reference: ReferenceModel,
        batches: Iterable[Mapping[str, Array]],
        only: Collection[LayerPrecision],
        on_batch: Callable[[int], None] = lambda samples: None,
    ) -> tuple[LayerLosses, ...]:
        forms, weights = prepared.probed.forms, prepared.outputs.weights
        return measure_batches(reference, forms, wanted, batches, only=only, weights=weights, workers=processors(), on_batch=on_batch)

    with lent_gpu(request.provider):
        reference = _reference(prepared, request.of, workspace, request.provider)
        batches = measured(reference, share.batches(prepared.batch), probed, report)
    if request.provider is Provider.CUDA:
        item = _some([one for one in wanted if one in probed], request.start // request.batch)
        first_batches = list(itertools.islice(share.batches(prepared.batch), _calls(prepared)))
        again = measured(_reference(prepared, request.of, workspace, Provider.CPU), first_batches, {item})
        column = wanted.index(item)
        found, expected = (np.concatenate([one.loss[:, column] for one in those]) for those in (batches[: len(again)], again))
        check_alike(f"the loss of layer {item.layer} in {item.precision}", found, expected)
    if request.is_part:
        written = write_batches(batches, _part_name(f"losses-{request.start}-{request.stop}", request.provider, "npz"), workspace)
    else:
        written = write_losses(joined(batches), name, workspace)
    return SensitivityResult(written, {reference.provider.value: 1}, len(probed))


def hessian(request: HessianRequest, context: StageContext) -> HessianResult:
    """Measure the Hessian traces of every layer, on a few samples a probe: more probes where the budget's boundary depends on them.

    A part makes the probes that every tensor has, of some layers. Which tensors need more is seen when all parts are there.
    """
    workspace = context.workspace
    prepared = read_model_record(request.of, workspace)
    samples = load_saved(workspace.path(request.of.calibration))
    size = prepared.batch if prepared.is_batch_fixed else max(1, min(HESSIAN_BATCH, samples.samples // HESSIAN_BATCHES))
    batches = [samples.take(np.arange(i * size, (i + 1) * size) % samples.samples).feeds() for i in range(HESSIAN_BATCHES)]
    eligible = request.of.eligible
    if request.layers is not None:
        eligible = dict(list(eligible.items())[slice(*request.layers)])
        batches = batches[: HESSIAN_BATCHES if request.allowed_loss is None else FIRST_PROBES]
    done = [workspace.read_value(TensorProbes, part.probes) for part in request.parts if part.probes is not None]

    def probed(
        reference: ReferenceModel,
        batches: Sequence[Mapping[str, Array]],
        eligible: EligiblePrecisions,
        means: MeanInputs | None,
        before: TensorProbes | None = None,
        on_batch: Callable[[int], None] = lambda done: None,
    ) -> TensorProbes:
        return probe_tensors(
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
            means=means,
            workers=processors(),
            on_batch=on_batch,
            before=before,
        )

    def report(done: int) -> None:
        context.progress(done / len(batches), f"Hessian probe {done} of {len(batches)}")

    with lent_gpu(request.provider):
        reference = _reference(prepared, request.of, workspace, request.provider)
        means = _mean_inputs(reference, prepared, request.of, samples, workspace)
        probes = probed(reference, batches, eligible, means, in_order(done) if done else None, report)
    if request.provider is Provider.CUDA and probes.rows:
        layer = probes.rows[0].layer
        cpu = _reference(prepared, request.of, workspace, Provider.CPU)
        _check_curvatures(probes, probed(cpu, batches[:FIRST_PROBES], {layer: eligible[layer]}, means))
    providers = parts_by_provider(request.parts)
    if len(probes.rows) > sum(len(part.rows) for part in done):
        providers[reference.provider.value] = providers.get(reference.provider.value, 0) + 1
    if request.layers is not None:
        start, stop = request.layers
        return HessianResult(
            (), 0, providers, workspace.write_value(_part_name(f"traces-{start}-{stop}", request.provider, "json"), probes)
        )
    traces = traces_from(probes)
    most = max((trace.probes for trace in traces), default=0)
    return HessianResult(traces, min(size * most, samples.samples), providers)


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
        return InteractionsResult(pair_tests(pairs, together, alone), parts_by_provider(request.parts))
    share = load_saved(workspace.path(request.of.calibration)).take(np.arange(start, stop))
    batches = list(share.batches(prepared.batch))
    known = [min(len(alone[one]) for one in pair) for pair in pairs]

    def lost(
        reference: ReferenceModel, batches: Sequence[Mapping[str, Array]], places: Sequence[int], on_batch: Callable[[int], None]
    ) -> NDArray[np.float64]:
        return pair_losses(
            reference,
            prepared.probed.forms,
            prepared.layers,
            [pairs[place] for place in places],
            batches,
            [known[place] for place in places],
            first=start,
            weights=prepared.outputs.weights,
            workers=processors(),
            on_batch=on_batch,
        )

    def report(done: int) -> None:
        context.progress(done / len(batches), f"{len(pairs)} pairs on {done} of {len(batches)} batches")

    with lent_gpu(request.provider):
        reference = _reference(prepared, request.of, workspace, request.provider)
        losses = lost(reference, batches, range(len(pairs)), report)
    few = batches[: _calls(prepared)]
    rows = losses[: len(few) * prepared.batch]
    tested = np.flatnonzero(~np.isnan(rows).any(axis=0)).tolist()
    if request.provider is Provider.CUDA and tested:
        place = _some(tested, start // request.batch)
        again = lost(_reference(prepared, request.of, workspace, Provider.CPU), few, [place], lambda done: None)
        one, other = pairs[place]
        what = f"the loss of layers {one.layer} in {one.precision} and {other.layer} in {other.precision}"
        check_alike(what, rows[:, place], again[:, 0])
    providers = {reference.provider.value: 1}
    if request.is_part:
        return InteractionsResult(
            (), providers, workspace.write_arrays(_part_name(f"pairs-{start}-{stop}", request.provider, "npz"), losses=losses)
        )
    return InteractionsResult(pair_tests(pairs, losses, alone), providers)


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


def _part_name(of: str, provider: Provider | None, ending: str) -> str:
    """Return the name of a part's file, one for each provider: who measures a part again leaves alone what another one may still write."""
    return f"part-of-{of}{'' if provider is None else f'-{provider.name.lower()}'}.{ending}"


def _some(items: Sequence[T], call: int) -> T:
    """Return one of several, another one for parts that begin with other calls of the model."""
    return items[call % len(items)]


def _calls(prepared: PreparedModel) -> int:
    """Return on how many calls of the model a probe is checked."""
    return -(-CHECKED_SAMPLES // prepared.batch)


def _check_curvatures(found: TensorProbes, expected: TensorProbes) -> None:
    """Accept what probes of a layer's tensors gave on CUDA; of each tensor whose steps are settled on the CPU.

    Raises:
        CalibrationError: One is not what it is on the CPU.
    """
    there = by_tensor(found.rows)
    for (layer, site), those in by_tensor(expected.rows).items():
        by_batch = {row.batch: row for row in there.get((layer, site), ())}
        pairs = [(by_batch[row.batch], row) for row in those if row.settled and row.batch in by_batch]
        if pairs:
            on_cuda, on_cpu = (np.array([row.curvature for row in rows]) for rows in zip(*pairs, strict=True))
            check_alike(f"the curvature of layer {layer} along its {site}", on_cuda, on_cpu, 2 * AGREEMENT)


def _reference(prepared: PreparedModel, of: Calibrated, workspace: Workspace, provider: Provider | None) -> ReferenceModel:
    corrections = read_corrections(of, workspace)
    return ReferenceModel(
        read_prepared(workspace.path(prepared.file)),
        prepared.layers,
        read_ranges(of, workspace).ranges,
        prepared.scheme,
        corrections.smooth_quants,
        levels=read_levels(corrections, workspace),
        shifts=read_shifts(corrections, workspace),
        provider=provider,
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
