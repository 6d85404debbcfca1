"""What holds for every sound model, as functions that return what is broken, in words; nothing where all holds.

How far two runs may differ. Rounding: the change that one rounding of every weight and tensor, by the unit of the coarsest float type
inside, makes in the outputs (``rounding``), three draws of it, times 30, and 64 units of the output's largest value besides.

An engine and its fake quantization differ by a whole step where a value lies within rounding of a tie, or where an integer kernel without
weights (a sum, an average of two) rounds once instead of twice. The root mean square of what quantization itself changes, which is 0.29
of a step on every tensor (a rounding has step / sqrt(12)), is allowed for that. A wrong scale, zero point, axis or clipped sum makes more.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from calibration.graph.layers import Layer, find_layers
from calibration.graph_passes.normalize import PreparedModel, prepare
from calibration.number_formats.precision import Precision
from calibration.onnx_model.model_io import read_model
from calibration.ranges.collection import collect_ranges
from calibration.ranges.range_table import RangeMethod
from engine_builder.qdq.checks.simulation import simulated
from engine_builder.qdq.onnxruntime_dialect import rewrite
from engine_builder.qdq.tensorrt_dialect import rewrite_tensorrt
from tests.generated.graphs import Array
from tests.generated.models import Generated
from tests.generated.rounding import jittered
from tests.generated.runnable import runnable
from tests.this_processor import EXACT_HERE

Outputs = list[Array]
REFUSED = "onnxruntime does not run it"
_FP16_UNIT = 2.0**-11
_STEPS = 1.0  # of the root mean square that quantization changes
_LEAST, _SMALL = 64.0, 1e-3  # units of the largest value, and of a value so small that FP16 has fewer bits for it
_DRAWS_TO_ALL = 30.0  # of the largest change of a few draws of the rounding
_SAMPLES = 32


def session(model: onnx.ModelProto, *, optimized: bool = False, fuses_pairs: bool = True) -> onnxruntime.InferenceSession:
    """Return a session with one thread: as the graph is written, or with the runtime's fusions, of Q/DQ pairs or without those."""
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if not fuses_pairs:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(runnable(model).SerializeToString(), options, providers=["CPUExecutionProvider"])


def unsound(made: Generated) -> str | None:
    """Return why the model is no sound one: a fault of the generator, or onnxruntime does not take it (the answer begins so)."""
    try:
        opened = session(made.model)
        for count in (made.batch,) if made.batch else (2, 3):
            outputs = opened.run(None, made.samples(count))
            for spec, output in zip(made.outputs, outputs, strict=True):
                wanted = tuple(dim if isinstance(dim, int) else count if dim == "N" else made.sizes[dim] for dim in spec.shape)
                if output.shape != wanted:
                    return f"shape: {spec.name} has {output.shape}, {wanted} was foreseen"
                if spec.is_float and not np.isfinite(output.astype(np.float64)).all():
                    return f"values: {spec.name} is not finite"
    except Exception as exc:  # onnxruntime's exceptions share no base class
        return f"{REFUSED}: {exc}"
    return None


class Case:
    """A sound model, read and prepared as a job does it, with samples and what it gives on them."""

    def __init__(self, made: Generated, folder: Path) -> None:
        """Prepare the model; refusals of the product come out as they are."""
        self.made = made
        path = folder / "model.onnx"
        path.write_bytes(made.model.SerializeToString())
        self.prepared: PreparedModel = prepare(read_model(path))
        self.layers: tuple[Layer, ...] = find_layers(self.prepared.model)
        samples = made.samples(_SAMPLES)
        count = made.batch or _SAMPLES
        self.batches = [{name: array[start : start + count] for name, array in samples.items()} for start in range(0, _SAMPLES, count)]
        self.reference = self.run(made.model)
        self.folder = folder

    def run(self, model: onnx.ModelProto, *, optimized: bool = False) -> Outputs:
        """Return the outputs of a model on all samples."""
        opened = session(model, optimized=optimized)
        return [np.concatenate(parts) for parts in zip(*(opened.run(None, batch) for batch in self.batches), strict=True)]

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Return the ranges of the layers' tensors, on the very samples that are compared."""
        path = self.folder / "prepared.onnx"
        path.write_bytes(self.prepared.model.SerializeToString())
        return dict(collect_ranges(path, self.layers, self.batches, method=RangeMethod.MINMAX).ranges)


def preparing_keeps_outputs(case: Case) -> str | None:
    """Law a: the prepared model computes what the model computes."""
    return _different(case, case.run(case.prepared.model), case.made.unit)


def baselines_equal_the_model(case: Case) -> str | None:
    """Law b: the baselines of every target do: optimized by onnxruntime, and in FP16 as TensorRT's are simulated."""
    found = _different(case, case.run(case.made.model, optimized=True), case.made.unit)
    if found:
        return f"optimized: {found}"
    found = _different(case, case.run(case.prepared.model, optimized=True), case.made.unit)
    if found:
        return f"prepared and optimized: {found}"
    explicit = rewrite_tensorrt(case.prepared.model, case.layers, {}, case.ranges(), baseline=Precision.FP16)
    found = _different(case, case.run(simulated(explicit)), max(case.made.unit, _FP16_UNIT))
    return f"in FP16: {found}" if found else None


def engine_equals_its_fake_quantization(case: Case) -> str | None:
    """Law c: with every layer in int8, the runtime's integer kernels compute what the Q/DQ pairs say."""
    quantized = {layer.name: Precision.INT8 for layer in case.layers}
    explicit = rewrite(case.prepared.model, case.layers, quantized, case.ranges(), EXACT_HERE)
    written = case.run(explicit)
    engine = case.run(explicit, optimized=True)
    plain = case.run(case.prepared.model)
    for spec, one, other, exact in zip(case.made.outputs, written, engine, plain, strict=True):
        if not spec.is_float:
            continue
        a, b, c = (np.asarray(array, np.float64) for array in (one, other, exact))
        if a.shape != b.shape:
            return f"{spec.name}: shape {b.shape}, {a.shape} expected"
        if not np.isfinite(b).all():
            return f"{spec.name}: not finite"
        noise, off = _rms(a - c), _rms(a - b)
        least = 1e-4 * float(np.abs(a).max(initial=0.0)) + 1e-7
        if off > _STEPS * noise + least:
            return f"{spec.name}: the engine is {off:.3g} from its fake quantization, which is {noise:.3g} from the float model"
    return None


LAWS = {
    "preparing": preparing_keeps_outputs,
    "baselines": baselines_equal_the_model,
    "fake quantization": engine_equals_its_fake_quantization,
}


def broken_laws(made: Generated) -> list[str]:
    """Return what is broken for a sound model, a line each."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        case = Case(made, Path(folder))
        for name, law in LAWS.items():
            why = law(case)
            if why:
                found.append(f"{name}: {why}")
    return found


def _different(case: Case, outputs: Sequence[Array], unit: float) -> str | None:
    """Return where outputs differ from the model's by more than rounding does to the model."""
    allowed = None
    for index, (spec, expected, found) in enumerate(zip(case.made.outputs, case.reference, outputs, strict=True)):
        if expected.shape != found.shape or expected.dtype != found.dtype:
            return f"{spec.name}: {found.dtype}{found.shape}, {expected.dtype}{expected.shape} expected"
        if not spec.is_float:
            if spec.exact and not np.array_equal(expected, found):
                return f"{spec.name}: other integers"
            continue
        a, b = expected.astype(np.float64), found.astype(np.float64)
        off = np.abs(a - b).max(initial=0.0)
        least = _LEAST * unit * (np.abs(a).max(initial=0.0) + _SMALL)
        if off <= least:
            continue
        allowed = _sensitivities(case, unit) if allowed is None else allowed
        if not off <= least + _DRAWS_TO_ALL * allowed[index]:
            return (
                f"{spec.name}: off by {off:.3g}, {least + _DRAWS_TO_ALL * allowed[index]:.3g} allowed, largest value {np.abs(a).max():.3g}"
            )
    return None


def _sensitivities(case: Case, unit: float) -> list[float]:
    """Return how far rounding by ``unit`` moves each output: the largest change of three draws."""
    plain = case.run(case.prepared.model)
    found = [0.0] * len(plain)
    for seed in range(3):
        for index, (one, other) in enumerate(zip(plain, case.run(jittered(case.prepared.model, unit, seed)), strict=True)):
            if one.dtype.kind == "f" and one.shape == other.shape:
                found[index] = max(found[index], float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max(initial=0.0)))
    return found


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0
