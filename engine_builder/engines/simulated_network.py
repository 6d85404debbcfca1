"""What a whole quantized network does to the outputs, as its explicit graph says it, whatever runtime its engine is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.data.dataset import CalibrationSet, SampleShare
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.onnx_model.model_io import read_model, save_model
from calibration.process.worker_threads import processors
from calibration.sensitivity.noise_level import noise_levels
from calibration.sensitivity.task_losses import losses
from engine_builder.backends.onnxruntime.cpu import OrtCpuRunner
from engine_builder.corrections.method import Noise
from engine_builder.evaluation.outputs import ComparedOutputs
from engine_builder.evaluation.run_samples import run_all
from engine_builder.qdq.dialects.base import Dialect, ExplicitPlan
from engine_builder.records.inspection import PreparedModel

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
        self._path = scratch / "whole-network.onnx"

    def noise(self, wanted: Sequence[LayerPrecision], ranges: Mapping[str, tuple[float, float]], samples: NDArray[np.int64]) -> Noise:
        """Return what the network does with each layer in the first precision of its own that is wanted, the others in float."""
        self._write(wanted, ranges)
        forms, weights = self._prepared.outputs.compared_forms, self._prepared.outputs.compared_weights
        batch = self._prepared.batch
        levels, lost = [], []
        with closing(self._opened(self._model)) as plain, closing(self._opened(self._path, as_written=True)) as rounded:
            step = max(AT_ONCE // batch, 1) * batch
            for start in range(0, len(samples), step):
                some = SampleShare(self._samples, samples[start : start + step])
                one, other = (run_all(runner, some, batch=batch, workers=processors()) for runner in (plain, rounded))
                levels.append(noise_levels(forms, one, other, weights))
                lost.append(losses(forms, one, other, weights))
        return Noise(np.concatenate(levels), np.concatenate(lost))

    def _write(self, wanted: Sequence[LayerPrecision], ranges: Mapping[str, tuple[float, float]]) -> None:
        quantized: dict[str, Precision] = {}
        for item in wanted:
            quantized.setdefault(item.layer, item.precision)
        model, layers = read_model(self._model), self._prepared.layers
        quantized = self._dialect.legalized(lambda: model, layers, quantized, Precision.FP32)
        plan = ExplicitPlan(model, layers, quantized, ranges, self._prepared.scheme, Precision.FP32)
        save_model(self._dialect.simulated(self._dialect.explicit(plan)), self._path)

    def _opened(self, path: Path, *, as_written: bool = False) -> ComparedOutputs:
        runner = OrtCpuRunner(path, threads=1, as_written=as_written, is_timed=False)
        return ComparedOutputs(runner, self._prepared.outputs.compared, self._prepared.axes)
