"""Losses of single layer precisions and their Gram matrix, against explicit graphs and plain sums."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from calibration.accuracy.metrics import OutputKind
from calibration.execution.onnxruntime_session import Array
from calibration.number_formats.grids import fake_quantize_weight
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.sensitivity.adaptive_sampling import PRIOR
from calibration.sensitivity.layer_losses import TOGETHER, LayerLosses, joined, measure_layer_losses
from calibration.sensitivity.perturbed_model import ReferenceModel
from calibration.sensitivity.task_losses import whitened
from tests.model_text import cnn, model_from_text, samples_for
from tests.probed_models import Probed, assert_close, probe_of, probed

KINDS = (OutputKind.LOGITS,)


@pytest.fixture(scope="module")
def case() -> Probed:
    return probed(cnn(), samples_for(cnn(), 48))


@pytest.fixture(scope="module")
def reference(case: Probed) -> ReferenceModel:
    return case.reference(2)


def int8(case: Probed) -> list[LayerPrecision]:
    return [LayerPrecision(layer.name, Precision.INT8) for layer in case.layers]


def batches(case: Probed, size: int) -> Iterator[dict[str, Array]]:
    x = case.feeds["input"]
    for start in range(0, len(x), size):
        yield {"input": x[start : start + size]}


def test_the_loss_of_a_layer_precision_is_that_of_the_explicit_graph(case: Probed, reference: ReferenceModel) -> None:
    found = measure_layer_losses(reference, KINDS, int8(case), batches(case, 16))
    for index, layer in enumerate(case.layers):
        expected = case.explicit_loss(KINDS, layer)
        assert found.loss[:, index].mean() == pytest.approx(expected.mean(), rel=0.1)  # values on the edge of two levels


def test_the_gram_matrix_is_the_mean_product_of_whitened_differences(case: Probed, reference: ReferenceModel) -> None:
    found = measure_layer_losses(reference, KINDS, int8(case), batches(case, 48))
    plain = case.outputs()
    e = [whitened(KINDS, plain, case.explicit_outputs(layer)).astype(np.float64) for layer in case.layers]
    products = np.array([[np.sum(a * b, axis=1) for a in e] for b in e])  # (layer precisions, layer precisions, samples)
    scale = np.sqrt(np.outer(np.diag(found.gram), np.diag(found.gram)))
    assert np.abs(found.gram - products.mean(axis=2)).max() < 0.1 * scale.max()
    assert np.array_equal(found.gram, found.gram.T)


def test_the_gram_diagonal_is_the_loss_to_second_order(case: Probed, reference: ReferenceModel) -> None:
    found = measure_layer_losses(reference, KINDS, int8(case), batches(case, 16))
    np.testing.assert_allclose(np.diag(found.gram), found.loss.mean(axis=0), rtol=0.02)  # third order of an 8-bit rounding


def test_the_gram_error_is_the_standard_error_over_samples(case: Probed, reference: ReferenceModel) -> None:
    alone = [measure_layer_losses(reference, KINDS, int8(case), [batch]) for batch in batches(case, 1)]
    found = joined(alone)
    entries = np.array([part.gram_sum for part in alone])  # one sample each
    np.testing.assert_allclose(found.gram_error, entries.std(axis=0, ddof=1) / np.sqrt(len(entries)), rtol=1e-3, atol=1e-12)


def test_neither_workers_nor_batches_change_what_is_found(case: Probed, reference: ReferenceModel) -> None:
    whole = measure_layer_losses(reference, KINDS, int8(case), batches(case, 48))
    for size, workers in ((16, 1), (16, 3), (7, 2)):
        parts = measure_layer_losses(reference, KINDS, int8(case), batches(case, size), workers=workers)
        np.testing.assert_allclose(parts.loss, whole.loss, rtol=1e-2, atol=1e-9)  # kernels choose their sums by the batch
        np.testing.assert_allclose(parts.gram, whole.gram, rtol=1e-2, atol=1e-9)
    assert np.array_equal(parts.loss, measure_layer_losses(reference, KINDS, int8(case), batches(case, 7)).loss)


def test_the_cut_does_not_change_what_is_found(case: Probed) -> None:
    found = [measure_layer_losses(case.reference(size), KINDS, int8(case), batches(case, 24)).loss for size in (1, 100)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-2, atol=1e-9)  # kernels fuse across what is not cut


def test_shares_of_the_samples_join_to_the_whole(case: Probed, reference: ReferenceModel) -> None:
    whole = measure_layer_losses(reference, KINDS, int8(case), batches(case, 16))
    parts = joined([measure_layer_losses(reference, KINDS, int8(case), [batch]) for batch in batches(case, 16)])
    assert parts.samples == whole.samples == 48
    assert np.array_equal(parts.loss, whole.loss)
    assert np.array_equal(parts.gram_sum, whole.gram_sum)


def test_several_precisions_of_a_layer_are_layer_precisions_of_their_own(case: Probed, reference: ReferenceModel) -> None:
    layer = case.layers[0]
    wanted = [LayerPrecision(layer.name, Precision.INT8), LayerPrecision(layer.name, Precision.INT4)]
    found = measure_layer_losses(reference, KINDS, wanted, batches(case, 16))
    eight, four = found.loss.mean(axis=0)
    assert 0 < eight < four


def test_int4_rounds_the_weight_alone(case: Probed, reference: ReferenceModel) -> None:
    layer = case.layers[0]
    probe = probe_of(reference, case.feeds, layer)
    weight = fake_quantize_weight(reference.weight(layer), layer.weight_axis, bits=4)
    assert_close(probe.quantized_output(Precision.INT4), probe.output(weight=weight))


def test_no_session_is_opened_while_batches_run(case: Probed) -> None:
    reference = case.reference(2)
    reference.open_quantized((layer.name, Precision.INT8) for layer in case.layers)
    before = reference.sessions
    measure_layer_losses(reference, KINDS, int8(case), batches(case, 16), workers=2)
    assert reference.sessions == before


def test_progress_counts_samples(case: Probed, reference: ReferenceModel) -> None:
    told: list[int] = []
    measure_layer_losses(reference, KINDS, int8(case)[:1], batches(case, 20), on_batch=told.append)
    assert told == [20, 40, 48]


def test_one_sample_has_no_known_error() -> None:
    one = LayerLosses((), np.zeros((1, 0)), np.zeros((0, 0)), np.zeros((0, 0)))
    assert one.gram_error.shape == (0, 0)


def test_layer_precisions_that_are_compared_together_are_found_as_alone(case: Probed) -> None:
    layer_precisions = [*int8(case), *(LayerPrecision(layer.name, Precision.INT4) for layer in case.layers[:2])]
    assert len(layer_precisions) > TOGETHER
    assert len(layer_precisions) % TOGETHER
    reference = case.reference()
    together = measure_layer_losses(reference, KINDS, layer_precisions, batches(case, 16))
    for index, layer_precision in enumerate(layer_precisions):
        alone = measure_layer_losses(reference, KINDS, [layer_precision], batches(case, 16))
        np.testing.assert_array_equal(together.loss[:, index], alone.loss[:, 0])
        np.testing.assert_allclose(together.gram[index, index], alone.gram[0, 0], rtol=1e-5)  # a sum of float32 in another order


def test_ignored_outputs_may_have_any_shape() -> None:
    model = model_from_text("g (float[N,6] x) => (float[N,5] y, float s) { y = Gemm(x, w)  s = ReduceSum<keepdims = 0>(y) }", {"w": (6, 5)})
    case = probed(model, samples_for(model, 8))
    found = measure_layer_losses(case.reference(), (OutputKind.VALUES, OutputKind.IGNORE), int8(case), [case.feeds])
    assert found.loss.shape == (8, 1)
    assert (found.loss > 0).all()


def test_without_layer_precisions_there_are_samples_and_nothing_else(case: Probed, reference: ReferenceModel) -> None:
    found = measure_layer_losses(reference, KINDS, [], batches(case, 16))
    assert (found.samples, found.loss.shape, found.gram.shape) == (48, (48, 0), (0, 0))


def raced(case: Probed, reference: ReferenceModel) -> tuple[LayerLosses, LayerLosses]:
    """Return the losses of all layers on all samples, and with the second layer on the first 16 of 48 alone."""
    wanted = int8(case)
    few = [wanted[0], *wanted[2:]]
    first, *rest = batches(case, 16)
    whole = measure_layer_losses(reference, KINDS, wanted, [first, *rest])
    parts = [measure_layer_losses(reference, KINDS, wanted, [first]), measure_layer_losses(reference, KINDS, wanted, rest, only=few)]
    return whole, joined(parts)


def test_what_was_probed_on_fewer_samples_is_brought_to_the_level_of_all(case: Probed, reference: ReferenceModel) -> None:
    whole, found = raced(case, reference)
    assert found.counts.tolist() == [48, 16, 48, 48]
    others = [0, 2, 3]
    np.testing.assert_allclose(found.mean[others], whole.loss[:, others].mean(axis=0), rtol=1e-6)
    raw = float(whole.loss[:16, 1].mean())
    level = np.mean([whole.loss[:16, index].mean() / whole.loss[:, index].mean() for index in others])
    assert found.mean[1] == pytest.approx(raw / ((3 * level + PRIOR) / (3 + PRIOR)))
    assert found.error[1] > whole.error[1]
    np.testing.assert_allclose(np.sqrt(np.diag(found.loss_covariance)), found.error, rtol=1e-9)


def test_the_gram_matrix_is_of_the_samples_that_both_were_probed_on(case: Probed, reference: ReferenceModel) -> None:
    whole, found = raced(case, reference)
    first = measure_layer_losses(reference, KINDS, int8(case), [next(batches(case, 16))])
    others = np.ix_([0, 2, 3], [0, 2, 3])
    np.testing.assert_allclose(found.gram[others], whole.gram[others], rtol=1e-6)
    np.testing.assert_allclose(found.gram_error[others], whole.gram_error[others], rtol=1e-6, atol=1e-15)
    assert np.array_equal(found.gram, found.gram.T)
    cosines = [part.gram / np.sqrt(np.outer(part.mean, part.mean)) for part in (found, first)]
    np.testing.assert_allclose(cosines[0][1], cosines[1][1], rtol=1e-6)  # they are what the first samples say


def test_losses_that_were_all_probed_alike_are_their_plain_means(case: Probed, reference: ReferenceModel) -> None:
    found = measure_layer_losses(reference, KINDS, int8(case), batches(case, 16))
    np.testing.assert_allclose(found.mean, found.loss.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.loss_covariance, np.cov(found.loss, rowvar=False) / 48, rtol=1e-9)
