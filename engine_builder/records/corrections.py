"""What the corrections of a job are, and what each was found to be worth."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from calibration.algorithms.gptq import Levels
from calibration.algorithms.smooth_quant import SmoothQuantScaling
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.sensitivity.simulated_layers import Shifts
from engine_builder.workspace.workspace import FileRef, Workspace


class CorrectionKind(enum.StrEnum):
    """What is done to make quantized layers less lossy."""

    RANGE = "range"  # calibration.ranges.estimators, of one tensor
    PERCENTILE = "percentile ranges"  # likewise, of a whole network
    ENTROPY = "entropy ranges"
    MSE = "mse ranges"
    SMOOTH_QUANT = "SmoothQuant"  # calibration.algorithms.smooth_quant
    GPTQ = "GPTQ"  # calibration.algorithms.gptq
    BIAS_CORRECTION = "bias correction"  # calibration.algorithms.bias_correction


OF_NETWORKS = (CorrectionKind.PERCENTILE, CorrectionKind.ENTROPY, CorrectionKind.MSE)  # ranges of all tensors of one, found in one way


@dataclass(frozen=True, slots=True)
class Correction:
    """A correction that was tried, with the loss before and after it on calibration samples that it was not fitted to.

    ``OF_NETWORKS`` are measured on the samples that they were fitted to as well.
    """

    what: CorrectionKind
    where: tuple[str, ...]  # layers
    # Sum of the losses of each of these layers alone in low precision. Bias correction: of the whole engine. Ranges of a whole network: the
    # geometric mean of what the decisions of the whole engine lose (``calibration.sensitivity.noise_level``).
    loss_before: float
    loss_after: float
    gain_error: float  # standard error of the difference
    samples: int
    kept: bool


@dataclass(frozen=True, slots=True)
class CorrectionData:
    """What the bias correction of any assignment is measured against."""

    means: FileRef  # mean output of each layer's channels in the float model, an array (channels,) by layer
    fitted: tuple[int, ...]  # the calibration samples behind the means
    reference: FileRef  # the compared outputs of the float model on ``held_out``, arrays "0", "1", ...
    held_out: tuple[int, ...]  # calibration samples that decide whether a correction is kept


@dataclass(frozen=True, slots=True)
class CorrectionTable:
    """The corrections that every engine of a job may use, and everything that was tried for them."""

    smooth_quants: tuple[SmoothQuantScaling, ...] = ()
    tried: tuple[Correction, ...] = ()
    correction: CorrectionData | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # of tensors that fare better than with min-max
    levels: FileRef | None = None  # integer weights that are not the nearest, an array "precision:layer" each
    shifts: FileRef | None = None  # the bias correction of each layer that is alone in low precision, an array "precision:layer" each


@dataclass(frozen=True, slots=True)
class ChangedLayers:
    """What engines have otherwise since corrections were measured."""

    layer_precisions: frozenset[LayerPrecision]
    before: FileRef | None  # a ``CorrectionTable``: what engines were made with until then

    def are_in(self, quantized: Mapping[str, Precision]) -> bool:
        """Return whether an engine with these quantized layers is another one than before."""
        return any(LayerPrecision(*item) in self.layer_precisions for item in quantized.items())


def write_levels(levels: Levels, workspace: Workspace) -> FileRef:
    """Write integer weights to a file that a table can name."""
    return workspace.write_arrays("levels.npz", **{f"{precision}:{layer}": array for (layer, precision), array in levels.items()})


def read_levels(table: CorrectionTable, workspace: Workspace) -> Levels:
    """Return the integer weights that are not the nearest."""
    return {key: np.asarray(array, dtype=np.int8) for key, array in _by_layer_precision(table.levels, workspace).items()}


def write_shifts(shifts: Shifts, workspace: Workspace) -> FileRef:
    """Write the bias corrections of single layers to a file that a table can name."""
    return workspace.write_arrays("layer-shifts.npz", **{f"{precision}:{layer}": array for (layer, precision), array in shifts.items()})


def read_shifts(table: CorrectionTable, workspace: Workspace) -> Shifts:
    """Return the bias correction of each layer that is alone in low precision."""
    return {key: np.asarray(array, dtype=np.float32) for key, array in _by_layer_precision(table.shifts, workspace).items()}


def _by_layer_precision(file: FileRef | None, workspace: Workspace) -> dict[tuple[str, Precision], NDArray[np.generic]]:
    if file is None:
        return {}
    found = {}
    for key, array in workspace.read_arrays(file).items():
        precision, layer = key.split(":", 1)
        found[layer, Precision(precision)] = array
    return found
