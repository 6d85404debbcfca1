"""What a whole quantized network does to the outputs, as its explicit graph says it, whatever runtime its engine is for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.data.dataset import CalibrationSet, SampleShare
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.onnx_model.model_io import read_model, save_model
from calibration.process.memory import return_dropped_models
from calibration.process.worker_threads import processors
from calibration.sensitivity.noise_level import noise_levels
from calibration.sensitivity.task_losses import losses
from engine_builder.backends.onnxruntime.cpu import OrtCpuRunner
from engine_builder.corrections.method import Noise
from engine_builder.evaluation.outputs import ComparedOutputs
from engine_builder.evaluation.run_samples import run_all
from engine_builder.qdq.dialects.base import Dialect, ExplicitPlan
from engine_builder.records.inspection import PreparedModel
from engine_builder.workspace.model_files import model_size_bytes

AT_ONCE = 4  # samples whose outputs are held


class SimulatedNetwork:
    """Runs explicit graphs of one model beside the model itself; a ``WholeNetwork``."""

    def __init__(self, model: Path, prepared: PreparedModel, samples: CalibrationSet, dialect: Dialect, scratch: Path) -> None:
        """Make one.

        Args:
            model: The prepared model's file.
            prepared: Its record.
            samples: The calibration samples.
            dialect: Of the target.
            scratch: A folder for the graphs.
        """
        self._model = model
        self._prepared = prepared
        self._samples = samples
        self._dialect = dialect
        self._scratch = scratch
        self._references: dict[bytes, tuple[Path, ...]] = {}  # files of the model's own outputs, by the samples

    def noise(self, wanted: Sequence[LayerPrecision], ranges: Mapping[str, tuple[float, float]], samples: NDArray[np.int64]) -> Noise:
        """Return what the network does with each layer in the first precision of its own that is wanted, the others in float."""
        references = self._references_of(samples)
        path = self._scratch / "whole-network.onnx"
        self._write(wanted, ranges, path)
        return_dropped_models(model_size_bytes(self._model))
        forms, weights = self._prepared.outputs.compared_forms, self._prepared.outputs.compared_weights
        levels, lost = [], []
        for reference, outputs in zip(references, self._outputs(path, samples, as_written=True), strict=True):
            with np.load(reference, allow_pickle=False) as kept:
                own = [kept[name] for name in kept.files]
            levels.append(noise_levels(forms, own, outputs, weights))
            lost.append(losses(forms, own, outputs, weights))
        return Noise(np.concatenate(levels), np.concatenate(lost))

    def _references_of(self, samples: NDArray[np.int64]) -> tuple[Path, ...]:
        """Run the model itself, so that no two sessions are open at once: a model may be large, and outputs may be."""
        key = samples.tobytes()
        if key not in self._references:
            paths = []
            for place, outputs in enumerate(self._outputs(self._model, samples)):
                paths.append(self._scratch / f"reference-{len(self._references)}-{place}.npz")
                np.savez(paths[-1], *outputs)
            self._references[key] = tuple(paths)
        return self._references[key]

    def _outputs(self, path: Path, samples: NDArray[np.int64], *, as_written: bool = False) -> Iterator[tuple[NDArray[np.generic], ...]]:
        """Yield the compared outputs of ``AT_ONCE`` samples at a time, or of a call where that has more."""
        batch = self._prepared.batch
        runner = OrtCpuRunner(path, threads=1, as_written=as_written, is_timed=False)
        with closing(ComparedOutputs(runner, self._prepared.outputs.compared, self._prepared.axes)) as opened:
            step = max(AT_ONCE // batch, 1) * batch
            for start in range(0, len(samples), step):
                yield run_all(opened, SampleShare(self._samples, samples[start : start + step]), batch=batch, workers=processors())

    def _write(self, wanted: Sequence[LayerPrecision], ranges: Mapping[str, tuple[float, float]], path: Path) -> None:
        quantized: dict[str, Precision] = {}
        for item in wanted:
            quantized.setdefault(item.layer, item.precision)
        model, layers = read_model(self._model), self._prepared.layers
        quantized = self._dialect.legalized(lambda: model, layers, quantized, Precision.FP32)
        plan = ExplicitPlan(model, layers, quantized, ranges, self._prepared.scheme, Precision.FP32)
        save_model(self._dialect.simulated(self._dialect.explicit(plan)), path)
