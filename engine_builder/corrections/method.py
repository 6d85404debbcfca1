"""What a correction of quantized layers is: a step that tries something, and keeps what helps on samples that it was not fitted to."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.algorithms.gptq import Levels
from calibration.algorithms.smooth_quant import SmoothQuantScaling
from calibration.data.dataset import CalibrationSet, SampleShare
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.ranges.range_table import RangeMethod
from engine_builder.records.corrections import Correction
from engine_builder.records.inspection import PreparedModel

Progress = Callable[[float, str], None]  # takes the share done, 0 to 1, and what is being done


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """What a whole quantized network does to the outputs, (samples,) each."""

    levels: NDArray[np.float64]  # of ``calibration.sensitivity.noise_level``
    losses: NDArray[np.float64]


class WholeNetwork(Protocol):
    """Runs the whole network with quantized layers, for corrections that are judged on one."""

    def noise(self, wanted: Sequence[LayerPrecision], ranges: Mapping[str, tuple[float, float]], samples: NDArray[np.int64]) -> Noise:
        """Return what the network does with each layer in the first precision of its own that is wanted, the others in float.

        Args:
            wanted: Layers and precisions.
            ranges: Of every tensor that they round.
            samples: Places of calibration samples, whole batches where the model's batch is fixed.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """A float model, the layers that may be quantized, and the calibration samples that corrections are fitted to and judged on.

    ``fitted`` and ``held_out``: sorted indices of samples, disjoint, whole batches where the model's batch is fixed; neither is empty.
    """

    model: onnx.ModelProto  # the prepared model
    prepared: PreparedModel  # its record
    layer_precisions: tuple[LayerPrecision, ...]  # every layer in each precision that it can take
    samples: CalibrationSet
    fitted: NDArray[np.int64]
    held_out: NDArray[np.int64]
    method: RangeMethod = RangeMethod.MINMAX  # how the user wants ranges to be chosen
    gptq: tuple[Precision, ...] = ()  # precisions whose weights the user wants rounded by GPTQ
    means: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)  # of ``SingleBiases``; empty where not known yet
    network: WholeNetwork | None = None  # None: nothing is judged on a whole one

    def fitted_share(self, most: int) -> SampleShare:
        """Return about ``most`` of the samples that corrections are fitted to, in whole batches where the model's batch is fixed."""
        return SampleShare(self.samples, self.first_fitted(most))

    def first_fitted(self, most: int) -> NDArray[np.int64]:
        """Return the places of these samples."""
        return self.fitted[: self._whole(most)]

    def held_out_share(self, most: int) -> SampleShare:
        """Return about ``most`` of the samples that judge them, likewise."""
        return SampleShare(self.samples, self.held_out[: self._whole(most)])

    def held_out_parts(self, looks: Sequence[int]) -> tuple[NDArray[np.int64], ...]:
        """Return the samples that judge them in parts, the first of which end after about so many samples; the last has the rest."""
        ends = sorted({min(self._whole(most), len(self.held_out)) for most in looks} | {len(self.held_out)})
        return tuple(self.held_out[start:end] for start, end in itertools.pairwise([0, *ends]))

    def shared(self, most: int) -> NDArray[np.int64]:
        """Return the places of about ``most`` samples of both, those first that judge: for what is hardly fitted to any one of them."""
        return np.sort(np.concatenate([self.held_out, self.fitted])[: self._whole(most)])

    def _whole(self, wanted: int) -> int:
        batch = self.prepared.batch
        return max(wanted // batch, 1) * batch if self.prepared.is_batch_fixed else wanted


@dataclass(frozen=True, slots=True, eq=False)
class InUse:
    """The corrections that are in place: each step measures with those before it."""

    ranges: Mapping[str, tuple[float, float]]  # of every tensor that may be rounded
    chosen_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # of ``ranges``, those in the place of min-max
    smooth_quants: tuple[SmoothQuantScaling, ...] = ()
    levels: Levels = field(default_factory=dict)  # integer weights that are not the nearest, by layer and precision


class CorrectionMethod(Protocol):
    """Tries one kind of correction."""

    def __call__(self, bench: Bench, in_use: InUse, progress: Progress) -> tuple[InUse, tuple[Correction, ...]]:
        """Return what is in use from now on, and everything that was tried, with its gain and whether it was kept.

        Args:
            bench: The model and the samples.
            in_use: What is in use so far; it is kept.
            progress: Told how far it is.
        """
