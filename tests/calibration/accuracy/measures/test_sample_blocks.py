"""What is computed of large outputs some samples at a time is what is computed of all at once, in little memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.accuracy.kinds.evidence import Evidence
from calibration.accuracy.kinds.mixed import mixed_parts
from calibration.accuracy.kinds.part import Part, spread_of
from calibration.accuracy.kinds.table import KINDS, part_scores
from calibration.accuracy.measures.classes import agreement, kl_divergence
from calibration.accuracy.measures.masks import masking_of
from calibration.accuracy.measures.sample_blocks import BLOCK_BYTES, by_sample, sample_slices
from calibration.accuracy.measures.values import closeness, cosine, nmse, psnr
from calibration.accuracy.metrics import OutputKind
from calibration.sensitivity.task_losses import losses
from tests.traced_memory import peak_bytes

Floats = NDArray[np.float32]
Measure = Callable[[NDArray[np.generic], NDArray[np.generic]], NDArray[np.float64]]

SAMPLES, ROWS, COLUMNS = 8, 40, 6
TILES = BLOCK_BYTES // (8 * ROWS * COLUMNS) + 1  # of which one sample is more than a block
VALUE_MEASURES: list[Measure] = [nmse, psnr, cosine, closeness, agreement, kl_divergence]
KINDS_OF_VALUES = [OutputKind.SCORES, OutputKind.REGRESSION, OutputKind.VALUES, OutputKind.EMBEDDING]


def _outputs(*, is_masked: bool = False) -> tuple[Floats, Floats]:
    """Return an output of the float model and of an engine; one sample is silent."""
    rng = np.random.default_rng(5)
    reference = rng.standard_normal((SAMPLES, ROWS, COLUMNS)).astype(np.float32)
    reference[2] = 0.0
    output = reference + 0.1 * rng.standard_normal(reference.shape).astype(np.float32)
    if is_masked:
        reference[:, 3], output[:, 3] = -1e9, -1e9
        reference[5, 4], output[5, 4] = -np.inf, -np.inf
    return reference, output


def _tiled(values: Floats) -> Floats:
    return np.tile(values, (1, TILES, 1))


def test_slices_cover_all_samples_in_order() -> None:
    values = np.zeros((5, BLOCK_BYTES // 16), dtype=np.float32)
    assert [(part.start, part.stop) for part in sample_slices(values)] == [(0, 2), (2, 4), (4, 6)]
    assert by_sample(lambda block: block[:, 0] + 1.0, np.arange(5.0)[:, None]).tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("measure", VALUE_MEASURES)
def test_measures_of_large_outputs_are_those_of_one_tile(measure: Measure, is_masked: bool) -> None:
    small, large = _outputs(is_masked=is_masked), [_tiled(values) for values in _outputs(is_masked=is_masked)]
    assert large[0][:1].nbytes * 2 > BLOCK_BYTES
    np.testing.assert_allclose(measure(*large), measure(*small), rtol=1e-9)  # sums of a thousand times as many values, rounded


@pytest.mark.parametrize("kind", KINDS_OF_VALUES)
def test_scores_by_kind_of_large_outputs_are_those_of_one_tile(kind: OutputKind) -> None:
    reference, output = _outputs()
    (part,) = KINDS[kind].parts(Evidence("y", reference))
    found = part_scores(part, _tiled(reference), _tiled(output))
    np.testing.assert_allclose(found, part_scores(part, reference, output), rtol=1e-9)  # as above
    assert len(np.unique(found)) > 1


def test_the_spread_of_large_outputs_is_that_of_one_tile() -> None:
    reference, _ = _outputs()
    np.testing.assert_allclose(spread_of(_tiled(reference)), spread_of(reference), rtol=1e-9)  # as above
    mean = reference.astype(np.float64).mean(axis=0)
    by_hand = np.sqrt(((reference - mean) ** 2).mean(axis=(0, 1)))
    np.testing.assert_allclose(spread_of(reference), by_hand, rtol=1e-9)  # another order of the sums


def test_a_level_that_masks_is_told_of_all_samples_together() -> None:
    reference = _tiled(np.zeros((SAMPLES, ROWS, COLUMNS), dtype=np.float32) + 1.0)
    assert masking_of(reference) is None
    reference[SAMPLES - 1, :2] = -5e4
    masking = masking_of(reference)
    assert masking is not None
    assert masking.level == -5e4
    assert not masking.of(reference[:1].astype(np.float64)).hidden.any()
    reference[0, 0, 0] = 600.0  # more than a hundredth of it, in another block
    assert masking_of(reference) is None


def test_losses_of_large_parts_are_those_of_one_tile() -> None:
    reference, output = _outputs()
    parts = (Part(OutputKind.REGRESSION, 2, (0, 1), (2.0, 3.0)), Part(OutputKind.LOGITS, 2, (2, 3, 4, 5)))
    for form in (parts, OutputKind.LOGITS, OutputKind.PROBABILITIES, OutputKind.VALUES):
        found = losses([form], [_tiled(reference)], [_tiled(output)])
        np.testing.assert_allclose(found, losses([form], [reference], [output]), rtol=1e-9)  # as above


MIXED = (Part(OutputKind.REGRESSION, 2, (0, 1), (2.0, 3.0)), Part(OutputKind.SCORES, 2, (2, 3, 4, 5), (0.5,)))
MEASURES_IN_FLOAT64: list[Measure] = [
    *VALUE_MEASURES,
    *(lambda r, x, part=part: part_scores(part, r, x) for part in MIXED),
    lambda r, x: losses([MIXED], [r], [x]),
    lambda r, x: losses([OutputKind.LOGITS], [r], [x]),
]


@pytest.mark.parametrize("measure", MEASURES_IN_FLOAT64)
def test_float64_copies_of_large_outputs_are_of_few_samples(measure: Measure) -> None:
    """At once, 4 to 11 times the float32 output was held."""
    reference, output = (_tiled(values) for values in _outputs())
    assert peak_bytes(lambda: measure(reference, output)) < 1.6 * reference.nbytes


def test_evidence_of_large_outputs_is_gathered_from_few_samples() -> None:
    reference, _ = _outputs()
    reference[:, :, 2:] = 1.0 / (1.0 + np.exp(-reference[:, :, 2:]))
    reference[:, :, :2] *= 200.0
    large = _tiled(reference)
    evidence = Evidence("y", large)
    assert mixed_parts(evidence)
    assert evidence.unit_axis is None
    assert evidence.sum_axis is None
    assert peak_bytes(lambda: (mixed_parts(evidence), evidence.unit_axis, evidence.sum_axis)) < large.nbytes
