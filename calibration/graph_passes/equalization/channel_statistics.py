"""How large the values of each channel of a tensor are, over some samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.execution.layerwise_run import LayerwiseRun
from calibration.execution.onnxruntime_session import Array
from calibration.graph.layers import Layer
from calibration.nonfinite import finite_of


@dataclass(frozen=True, slots=True, eq=False)
class ChannelStatistics:
    """Of one tensor: for each channel the largest size of a value and the mean square, both (channels,) float64."""

    largest: NDArray[np.float64]
    mean_square: NDArray[np.float64]
    is_signed: bool  # whether any value is below zero


@dataclass(frozen=True, slots=True, eq=False)
class SeenChannels:
    """Of one tensor, twice: what factors are chosen from, and what they are judged on, which is more wherever there are two batches."""

    chosen_from: ChannelStatistics  # every second batch
    judged_on: ChannelStatistics  # all batches


def channel_statistics(
    model: onnx.ModelProto, layers: Sequence[Layer], axes: Mapping[str, int], batches: Iterable[Mapping[str, Array]]
) -> dict[str, SeenChannels]:
    """Return the statistics of tensors by name; what holds no values, or some that are not finite, is left out.

    Args:
        model: The prepared model.
        layers: Its layers; only their inputs and outputs are seen.
        axes: For each tensor the axis of its channels, counted from the end.
        batches: Inputs by name, each (batch, ...).
    """
    run = LayerwiseRun(model, layers)
    parts: dict[str, list[ChannelStatistics]] = {name: [] for name in axes}
    for batch in batches:
        for name, value in run.tensors(batch):
            if name in axes:
                parts[name].append(_of(value, axes[name]))
    joined = {name: SeenChannels(_joined(found[::2]), _joined(found)) for name, found in parts.items() if found}
    return {name: one for name, one in joined.items() if _is_known(one.judged_on)}


def _is_known(one: ChannelStatistics) -> bool:
    return bool(one.largest.size) and bool(np.all(np.isfinite(one.mean_square)))


def _of(value: Array, axis: int) -> ChannelStatistics:
    rows = np.moveaxis(value, axis, -1).reshape(-1, value.shape[axis]).astype(np.float32, copy=False)
    if not rows.size or finite_of(value).size != value.size:
        return ChannelStatistics(np.zeros(0), np.zeros(0), is_signed=False)
    squares = np.einsum("ij,ij->j", rows, rows, dtype=np.float64) / len(rows)
    largest = np.maximum(rows.max(axis=0), -rows.min(axis=0)).astype(np.float64)
    return ChannelStatistics(largest, squares, is_signed=bool(rows.min() < 0))


def _joined(parts: Sequence[ChannelStatistics]) -> ChannelStatistics:
    if len({one.largest.size for one in parts}) > 1:
        return ChannelStatistics(np.zeros(0), np.zeros(0), is_signed=False)
    largest = np.max([one.largest for one in parts], axis=0)
    return ChannelStatistics(largest, np.mean([one.mean_square for one in parts], axis=0), any(one.is_signed for one in parts))
