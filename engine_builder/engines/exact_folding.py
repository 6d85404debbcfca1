"""Looks on the user's samples whether the model with its constants folded into the layers computes what the model computes.

Folding is exact but for rounding; where one number is the difference of two large ones, rounding may be most of what is left of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from calibration.data.dataset import CalibrationSet
from calibration.data.sample_axes import Array, SampleAxes
from calibration.data.settings import make_constant
from calibration.errors import InputError
from calibration.graph_passes.normalize import prepare
from calibration.onnx_model.model_io import read_model, save_model
from engine_builder.evaluation.float_scores import FloatModel
from engine_builder.evaluation.sameness import is_same

COMPARED_SAMPLES = 8  # or one call, where that has more
ROUNDING = 1e-4  # relative: a hundred layers in another order of summing differ by 1e-6 to 1e-5
NOT_EXACT = "constants around layers left as they are: folded into weights and biases, they changed the outputs by more than rounding"


def unfolded(model: Path, settings: Mapping[str, Array], scratch: Path) -> Path:
    """Return the file of a model that is prepared but for the folding, for where the user's own is not the float32 reference.

    Args:
        model: The user's file.
        settings: Inputs that have one value for the whole job.
        scratch: A folder for the result.
    """
    read, path = read_model(model), scratch / "unfolded.onnx"
    make_constant(read, settings)
    save_model(prepare(read, folds=False).model, path)
    return path


def is_exact(
    folded: FloatModel,
    plain: FloatModel,
    samples: CalibrationSet,
    *,
    batch: int,
    compared: Sequence[int],
    axes: SampleAxes,
    is_batch_fixed: bool,
) -> bool:
    """Return whether two forms of a model give the same outputs, up to rounding.

    Args:
        folded: The one.
        plain: The other.
        samples: The calibration samples, of which the first COMPARED_SAMPLES are run.
        batch: Samples in a call.
        compared: Which outputs.
        axes: Where the model counts samples.
        is_batch_fixed: Whether the model takes exactly ``batch`` samples.

    Raises:
        InputError: ``plain`` does not run on the samples.
    """
    count = max(COMPARED_SAMPLES // batch, 1) * batch
    some = samples.take(np.arange(min(count, samples.samples)))

    def outputs(model: FloatModel) -> tuple[Array, ...]:
        return model.outputs(some, batch, compared, axes, "calibration set", is_batch_fixed=is_batch_fixed)

    expected = outputs(plain)
    try:
        found = outputs(folded)
    except InputError:  # NaN, where the other has none
        return False
    return all(is_same(one, other, ROUNDING) for one, other in zip(expected, found, strict=True))
