"""The bias correction of every layer that is alone in low precision, over the samples that the biases of engines are corrected on.

The probes of the float model and the corrections that are judged layer by layer see each layer with it, as its engine has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.algorithms.bias_correction import BiasLocation, bias_locations, mean_outputs
from calibration.data.dataset import SampleShare
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.sensitivity.means.output_shifts import measure_shifts
from calibration.sensitivity.simulated_layers import Shifts
from engine_builder.corrections.method import Bench, InUse
from engine_builder.records.inspection import PreparedModel

CORRECTION_SAMPLES = 16  # whose activations are alive at once; their positions are averaged over too


@dataclass(frozen=True, slots=True, eq=False)
class SingleBiases:
    """What biases are corrected against: the channel means of the float model over a few samples."""

    model: onnx.ModelProto  # the prepared model
    prepared: PreparedModel
    locations: tuple[BiasLocation, ...]
    samples: SampleShare
    means: Mapping[str, NDArray[np.float64]]  # (channels,) by layer

    def shifts(self, layer_precisions: Sequence[LayerPrecision], in_use: InUse) -> Shifts:
        """Return the bias correction of each layer precision alone, with the other corrections that are in use."""
        return measure_shifts(
            self.model,
            self.prepared.layers,
            layer_precisions,
            in_use.ranges,
            self.prepared.scheme,
            self.locations,
            self.means,
            self.samples.batches(min(self.prepared.batch, self.samples.samples)),
            smooth_quants=in_use.smooth_quants,
            levels=in_use.levels,
        )


def as_means(arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float64]]:
    """Return channel means as they were before they were written to a file."""
    return {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}


def single_biases(bench: Bench) -> SingleBiases:
    """Return what biases are corrected against; the float model runs on the samples, unless their means are known."""
    locations = bias_locations(bench.model, bench.prepared.layers)
    share = bench.fitted_share(CORRECTION_SAMPLES)
    means = bench.means or mean_outputs(bench.model, locations, share.batches(min(bench.prepared.batch, share.samples)))
    return SingleBiases(bench.model, bench.prepared, locations, share, means)
