"""The score of a sample by each of its outputs: the worst part counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from calibration.accuracy.kinds.part import Array, Booleans, Doubles, JudgedOutput
from calibration.accuracy.kinds.positions import counted_positions
from calibration.accuracy.kinds.rows.matching import joint_scores
from calibration.accuracy.kinds.table import part_scores
from calibration.accuracy.measures.masks import masking_of
from calibration.accuracy.measures.sample_blocks import doubles
from calibration.accuracy.metrics import CLASSES


def scores_by_kind(
    judged: Sequence[JudgedOutput], reference: Sequence[Array], outputs: Sequence[Array], inputs: Mapping[str, Array]
) -> Doubles:
    """Return the score of each sample by each output, (outputs, samples), at most 1; outputs that are judged together have one score.

    Args:
        judged: How each is judged.
        reference: The float model's, each (samples, ...).
        outputs: An engine's, of the same shapes.
        inputs: Of the same samples; they may take positions out.
    """
    before, after = ({one.name: array for one, array in zip(judged, arrays, strict=True)} for arrays in (reference, outputs))
    joint = {one.together: joint_scores(one.together, before, after) for one in judged if one.together is not None}
    found = [
        output_scores(one, r, x, inputs) if one.together is None else joint[one.together]
        for one, r, x in zip(judged, reference, outputs, strict=True)
    ]
    return np.stack(found)


def output_scores(judged: JudgedOutput, reference: Array, output: Array, inputs: Mapping[str, Array]) -> Doubles:
    """Return the score of each sample by one output, (samples,), at most 1.

    What is masked alike in both, as logits by -inf, says nothing of the values (``masks.py``); classes are masked so on purpose.

    Args:
        judged: How it is judged.
        reference: The float model's, (samples, ...).
        output: An engine's, the same shape.
        inputs: Of the same samples; they may take positions out.
    """
    counted = counted_of(inputs, reference)
    plain = _without_masked(reference, output) if any(part.kind not in CLASSES for part in judged.parts) else (reference, output)
    found = [part_scores(part, *((reference, output) if part.kind in CLASSES else plain), counted) for part in judged.parts]
    return np.asarray(np.min(np.stack(found), axis=0), dtype=np.float64)


def counted_of(inputs: Mapping[str, Array], reference: Array) -> Booleans | None:
    """Return which positions of an output, (samples, positions, ...), count; None where all do."""
    return (
        counted_positions(inputs, reference.shape[1])
        if reference.ndim > 2 or (reference.ndim == 2 and reference.dtype.kind != "f")
        else None
    )


def _without_masked(reference: Array, output: Array) -> tuple[Array, Array]:
    if reference.dtype.kind != "f":
        return reference, output
    masking = masking_of(reference)
    if masking is None:
        return reference, output
    r, x = doubles(reference), doubles(output)
    mask = masking.of(r)
    return np.where(mask.hidden, 0.0, r), np.where(mask.alike(x), 0.0, np.where(mask.hidden, np.nan, x))
