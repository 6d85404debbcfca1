"""Evens out the channels between the layers of a prepared model, by the sizes that they have on a few calibration samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from calibration.data.dataset import CalibrationSet
from calibration.data.sample_axes import Array
from calibration.errors import CalibrationError
from calibration.graph.layers import Layer
from calibration.graph_passes.equalization.equalize import equalize
from calibration.graph_passes.normalize import PreparedModel

SAMPLES = 32  # whose channels are looked at; factors are chosen from half of them


def equalized(prepared: PreparedModel, layers: Sequence[Layer], calibration: CalibrationSet, batch: int) -> PreparedModel:
    """Return the prepared model with a note of what was evened out, or as it is where nothing was.

    Args:
        prepared: The model.
        layers: Its layers.
        calibration: The samples.
        batch: Samples that the model takes at once; 1 where it takes any number.
    """

    def calls() -> Iterator[dict[str, Array]]:
        for start in range(0, min(max(SAMPLES, 2 * batch), calibration.samples), batch):
            yield calibration.take(np.arange(start, start + batch) % calibration.samples).feeds()

    try:
        model, count = equalize(prepared.model, layers, calls())
    except CalibrationError:  # the samples do not fit the model: what runs it next says so in the user's words
        return prepared
    if not count:
        return prepared
    where = "one layer" if count == 1 else f"{count} layers"
    note = f"channels evened out behind {where} by powers of two, which changes no output (cross-layer equalization)"
    return replace(prepared, model=model, notes=(*prepared.notes, note), is_equalized=True)
