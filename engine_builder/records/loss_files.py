"""The files in which the probes of shares of the samples leave their losses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibration.number_formats.layer_precision import Decision
from calibration.sensitivity.layer_losses import Singles, joined
from engine_builder.workspace.workspace import FileRef, Workspace

_ARRAYS = ("loss", "gram_sum", "gram_square_sum")


def write_losses(losses: Singles, name: str, workspace: Workspace) -> FileRef:
    """Write the losses of one share of the samples."""
    return workspace.write_arrays(name, **{key: getattr(losses, key) for key in _ARRAYS})


def read_losses(files: Sequence[FileRef], decisions: Sequence[Decision], workspace: Workspace) -> Singles:
    """Return the losses of all shares as one.

    Args:
        files: One for each share, at least one.
        decisions: What was probed, in the order of the arrays.
        workspace: Where they lie.
    """
    parts = []
    for file in files:
        arrays = workspace.read_arrays(file)
        parts.append(Singles(tuple(decisions), *(np.asarray(arrays[key], dtype=np.float64) for key in _ARRAYS)))
    return joined(parts)
