"""The files in which the probes of shares of the samples leave their losses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.sensitivity.layer_losses import LayerLosses, joined
from engine_builder.workspace.workspace import FileRef, Workspace

_ARRAYS = ("loss", "gram_sum", "gram_square_sum")


def write_losses(losses: LayerLosses, name: str, workspace: Workspace) -> FileRef:
    """Write the losses of one share of the samples."""
    return workspace.write_arrays(name, **{key: getattr(losses, key) for key in _ARRAYS})


def read_losses(files: Sequence[FileRef], layer_precisions: Sequence[LayerPrecision], workspace: Workspace) -> LayerLosses:
    """Return the losses of all shares as one.

    Args:
        files: One for each share, at least one.
        layer_precisions: What was probed, in the order of the arrays.
        workspace: Where they lie.
    """
    parts = []
    for file in files:
        arrays = workspace.read_arrays(file)
        parts.append(LayerLosses(tuple(layer_precisions), *(np.asarray(arrays[key], dtype=np.float64) for key in _ARRAYS)))
    return joined(parts)
