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


def write_batches(batches: Sequence[LayerLosses], name: str, workspace: Workspace) -> FileRef:
    """Write what each batch of a part of a share gave, one beside the other."""
    arrays = {key: np.stack([getattr(one, key) for one in batches]) for key in _ARRAYS[1:]}
    sizes = np.array([one.samples for one in batches], dtype=np.int64)
    return workspace.write_arrays(name, loss=np.concatenate([one.loss for one in batches]), samples=sizes, **arrays)


def join_batches(files: Sequence[FileRef], layer_precisions: Sequence[LayerPrecision], workspace: Workspace) -> LayerLosses:
    """Return the losses of a share from those of its parts, in order: to the last bit what the share gives that is not split.

    Args:
        files: As ``write_batches`` left them, at least one.
        layer_precisions: What was probed, in the order of the arrays.
        workspace: Where they lie.
    """
    batches = []
    for file in files:
        arrays = workspace.read_arrays(file)
        losses = np.split(np.asarray(arrays["loss"], dtype=np.float64), np.cumsum(arrays["samples"])[:-1])
        sums = (np.asarray(arrays[key], dtype=np.float64) for key in _ARRAYS[1:])
        batches += [LayerLosses(tuple(layer_precisions), *one) for one in zip(losses, *sums, strict=True)]
    return joined(batches)


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
