"""The stages ``biases`` and ``correct``: what makes quantized layers less lossy.

``biases`` costs next to nothing: it measures on a few samples what the biases of any engine are corrected against
(``engine_builder.engines.quantized_engine`` corrects them, for each engine by itself). ``correct`` tries everything else, each step with
those before it in place, and keeps what was measured to help: the steps are those of ``engine_builder.corrections.registry``. It also
measures the bias correction of each layer that is alone in low precision, which the probes see it with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.data.dataset import SampleShare, load_saved
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.onnx_model.weights_in_file import read_prepared
from calibration.process.worker_threads import processors
from calibration.sensitivity.simulated_layers import rounded_tensors
from engine_builder.backends.onnxruntime.cpu import OrtCpuRunner
from engine_builder.backends.registry import backend_for, targets_of
from engine_builder.corrections.method import Bench, InUse
from engine_builder.corrections.registry import CORRECTIONS
from engine_builder.corrections.single_biases import CORRECTION_SAMPLES, SingleBiases, as_means, single_biases
from engine_builder.engines.simulated_network import SimulatedNetwork
from engine_builder.evaluation.outputs import ComparedOutputs
from engine_builder.evaluation.run_samples import run_all
from engine_builder.records.calibrated import layer_precisions_of, read_corrections, read_model_record, read_ranges
from engine_builder.records.corrections import Correction, CorrectionData, CorrectionTable, write_levels, write_shifts
from engine_builder.records.inspection import PreparedModel
from engine_builder.stage_io.measuring import BiasesRequest, CorrectRequest, CorrectResult
from engine_builder.workspace.workspace import StageContext, Workspace

HELD_OUT_SHARE = 0.25  # of the calibration samples, which the corrections are not fitted to
MOST_HELD_OUT = 48


def biases(request: BiasesRequest, context: StageContext) -> CorrectResult:
    """Return a table of nothing but what biases are corrected against."""
    workspace = context.workspace
    prepared = read_model_record(request.of, workspace)
    samples = load_saved(workspace.path(request.of.calibration))
    fitted, held_out = split(samples.samples, prepared.batch if prepared.is_batch_fixed else 1, request.seed)
    table = CorrectionTable()
    if len(held_out):
        bench = Bench(read_prepared(workspace.path(prepared.file)), prepared, (), samples, fitted, held_out)
        table = CorrectionTable(correction=_correction_data(bench, single_biases(bench), workspace))
    return _result(table, "biases.json", workspace)


def correct(request: CorrectRequest, context: StageContext) -> CorrectResult:
    """Return the table of the corrections that helped, and of all that were tried."""
    of, workspace = request.of, context.workspace
    prepared = read_model_record(of, workspace)
    samples = load_saved(workspace.path(of.calibration))
    fitted, held_out = split(samples.samples, prepared.batch if prepared.is_batch_fixed else 1, request.seed)
    if not len(held_out):
        return _result(CorrectionTable(), "repairs.json", workspace)
    wanted = layer_precisions_of(prepared.layers, of.eligible)
    model, data = read_prepared(workspace.path(prepared.file)), read_corrections(of, workspace).correction
    means = {} if data is None else workspace.read_arrays(data.means)
    dialect = backend_for(request.target, request.gpu, table=targets_of(context)).capabilities.dialect
    network = SimulatedNetwork(workspace.path(prepared.file), prepared, samples, dialect, context.scratch)
    bench = Bench(model, prepared, wanted, samples, fitted, held_out, request.method, request.gptq, as_means(means), network)
    biases = single_biases(bench)
    data = data or _correction_data(bench, biases, workspace)
    in_use = InUse(read_ranges(of, workspace).ranges)
    tried: tuple[Correction, ...] = ()
    for index, method in enumerate(CORRECTIONS):
        part = context.part(index / len(CORRECTIONS), (index + 1) / len(CORRECTIONS))
        in_use, found = method(bench, in_use, part.progress)
        tried += found
    levels = write_levels(in_use.levels, workspace) if in_use.levels else None
    shifts = write_shifts(biases.shifts(wanted, in_use), workspace)
    table = CorrectionTable(in_use.smooth_quants, tried, data, in_use.chosen_ranges, levels, shifts)
    context.progress(1.0, f"{len(tried)} corrections tried")
    return _result(table, "repairs.json", workspace, _changed(prepared, wanted, in_use))


def _result(table: CorrectionTable, name: str, workspace: Workspace, changed: tuple[LayerPrecision, ...] = ()) -> CorrectResult:
    correction = (table.correction.means, table.correction.reference) if table.correction is not None else ()
    named = (*correction, *(file for file in (table.levels, table.shifts) if file is not None))
    return CorrectResult(workspace.write_value(name, table), named, changed)


def _changed(prepared: PreparedModel, wanted: Sequence[LayerPrecision], in_use: InUse) -> tuple[LayerPrecision, ...]:
    """Return what an engine has otherwise with these corrections."""
    layers = {layer.name: layer for layer in prepared.layers}
    smoothed = {name for smooth_quant in in_use.smooth_quants for name in smooth_quant.layers}

    def is_changed(item: LayerPrecision) -> bool:
        if (item.layer, item.precision) in in_use.levels or (item.layer in smoothed and item.precision.takes_smooth_quant):
            return True
        rounded = rounded_tensors(layers[item.layer], prepared.scheme) if item.precision.rounds_inputs else ()
        return any(name in in_use.chosen_ranges for name in rounded)

    return tuple(item for item in wanted if is_changed(item))


def split(samples: int, batch: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return sorted indices of the samples to fit corrections to and of those to judge them on; the latter empty where there are too few.

    Args:
        samples: Calibration samples.
        batch: Both counts are multiples of this; a rest is left out.
        seed: Of the permutation.
    """
    mixed = np.random.default_rng([seed, samples, 1]).permutation(samples).astype(np.int64)
    held_out = min(max(round(samples * HELD_OUT_SHARE / batch), 2 if batch == 1 else 1), MOST_HELD_OUT // batch or 1) * batch
    fitted = (samples - held_out) // batch * batch
    if fitted < held_out:
        return mixed, mixed[:0]
    return np.sort(mixed[held_out : held_out + fitted]), np.sort(mixed[:held_out])


def _correction_data(bench: Bench, biases: SingleBiases, workspace: Workspace) -> CorrectionData:
    """Run the float model on the samples that judge the corrections, and keep what those of biases are measured against."""
    prepared, samples, held_out = bench.prepared, bench.samples, bench.held_out
    float_model = OrtCpuRunner(workspace.path(prepared.file), threads=1, is_timed=False)
    runner = ComparedOutputs(float_model, prepared.outputs.compared, prepared.axes)
    try:
        reference = run_all(runner, SampleShare(samples, held_out), batch=prepared.batch, workers=processors())
    finally:
        runner.close()
    return CorrectionData(
        workspace.write_arrays("bias-means.npz", **biases.means),
        tuple(map(int, bench.first_fitted(CORRECTION_SAMPLES))),
        workspace.write_arrays("repair-reference.npz", **{str(index): array for index, array in enumerate(reference)}),
        tuple(map(int, held_out)),
    )
