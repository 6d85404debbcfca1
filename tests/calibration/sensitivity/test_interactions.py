"""Exact pair tests against explicit graphs; the screen; which pairs are tested."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx
import pytest

from calibration.accuracy.metrics import OutputKind
from calibration.execution.onnxruntime_session import Array
from calibration.graph.layers import Layer
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, TENSORRT_SCHEME, Precision
from calibration.sensitivity.interactions import DependencyMatrix, dependency_matrix, measure_pairs, pairs_to_test, sharing_pairs
from calibration.sensitivity.layer_losses import LayerLosses, measure_layer_losses
from calibration.sensitivity.records import PairTest
from tests.model_text import cnn, model_from_text, samples_for
from tests.probed_models import Probed, probed


def int8(layers: Sequence[Layer]) -> list[LayerPrecision]:
    return [LayerPrecision(layer.name, Precision.INT8) for layer in layers]


def halves(case: Probed) -> list[dict[str, Array]]:
    return [{name: np.split(value, 2)[index] for name, value in case.feeds.items()} for index in range(2)]


def exact_tests(
    case: Probed, kinds: Sequence[OutputKind], pairs: Sequence[tuple[LayerPrecision, LayerPrecision]] | None = None, *, workers: int = 1
) -> tuple[LayerLosses, tuple[PairTest, ...]]:
    reference = case.reference(2)
    wanted = int8(case.layers)
    layer_losses = measure_layer_losses(reference, kinds, wanted, halves(case))
    alone = {layer_precision: layer_losses.loss[:, index] for index, layer_precision in enumerate(wanted)}
    pairs = list(itertools.combinations(wanted, 2)) if pairs is None else pairs
    return layer_losses, measure_pairs(reference, kinds, case.layers, pairs, halves(case), alone, workers=workers)


def test_layers_of_separate_losses_do_not_depend_on_each_other() -> None:
    model = model_from_text(
        "g (float[N,6] x, float[N,6] z) => (float[N,4] a, float[N,3] b) { a = Gemm(x, wa) b = Gemm(z, wb) }", {"wa": (6, 4), "wb": (6, 3)}
    )
    case = probed(model, samples_for(model, 16))
    kinds = (OutputKind.LOGITS, OutputKind.VALUES)
    layer_losses, (test,) = exact_tests(case, kinds)
    assert layer_losses.loss.min() > 0
    assert abs(test.dependency) < 1e-15
    assert test.error < 1e-15
    assert abs(layer_losses.gram[0, 1]) < 1e-15


def test_a_dependency_is_what_the_explicit_graph_loses_beyond_both_alone() -> None:
    case = probed(cnn(), samples_for(cnn(), 32))
    kinds = (OutputKind.LOGITS,)
    _, tests = exact_tests(case, kinds)
    alone = {layer.name: case.explicit_loss(kinds, layer) for layer in case.layers}
    by_name = {layer.name: layer for layer in case.layers}
    assert len(tests) == 6
    for test in tests:
        first, second = test.first.layer, test.second.layer
        extra = case.explicit_loss(kinds, by_name[first], by_name[second]) - alone[first] - alone[second]
        scale = alone[first].mean() + alone[second].mean()
        assert test.dependency == pytest.approx(extra.mean(), abs=0.05 * scale)
        assert test.error == pytest.approx(extra.std(ddof=1) / np.sqrt(len(extra)), abs=0.05 * scale)
        assert test.samples == 32


def test_the_screen_predicts_the_exact_dependency_of_a_linear_model() -> None:
    """Two layers in parallel whose errors add up in the output: D = 2 G exactly, to second order."""
    model = model_from_text(
        "g (float[N,8] x, float[N,8] z) => (float[N,6] y) { a = MatMul(x, wa) b = MatMul(z, wb) y = Sub(a, b) }",
        {"wa": (8, 6), "wb": (8, 6)},
    )
    case = probed(model, samples_for(model, 64))
    layer_losses, (test,) = exact_tests(case, (OutputKind.VALUES,))
    assert test.dependency == pytest.approx(2 * layer_losses.gram[0, 1], rel=1e-2)


def test_workers_do_not_change_the_tests() -> None:
    case = probed(cnn(), samples_for(cnn(), 8))
    assert exact_tests(case, (OutputKind.LOGITS,))[1] == exact_tests(case, (OutputKind.LOGITS,), workers=2)[1]


def chain() -> onnx.ModelProto:
    """Four layers; the first two read one tensor, the last two share the tensor between them."""
    return model_from_text(
        """g (float[N,6] x) => (float[N,6] y) {
            a = MatMul(x, wa)
            b = MatMul(x, wb)
            d = Sub(a, b)
            c = Gemm(d, wc)
            y = Gemm(c, wd)
        }""",
        dict.fromkeys(("wa", "wb", "wc", "wd"), (6, 6)),
    )


def screen(
    layers: Sequence[Layer], entries: dict[tuple[int, int], float], errors: dict[tuple[int, int], float] | None = None
) -> LayerLosses:
    count, samples = len(layers), 101
    gram, error = np.eye(count) * 1.0, np.zeros((count, count))
    for (i, j), value in entries.items():
        gram[i, j] = gram[j, i] = value
    for (i, j), value in (errors or {}).items():
        error[i, j] = error[j, i] = value
    squares = samples * (error**2 * (samples - 1) + gram**2)
    return LayerLosses(tuple(int8(layers)), np.ones((samples, count)), gram * samples, squares)


def places(layers: Sequence[Layer], pairs: Sequence[tuple[LayerPrecision, LayerPrecision]]) -> list[tuple[int, int]]:
    place = {layer.name: index for index, layer in enumerate(layers)}
    return [(place[first.layer], place[second.layer]) for first, second in pairs]


def test_pairs_that_share_a_rounded_tensor_come_first_then_the_largest() -> None:
    layers = probed(chain(), samples_for(chain(), 2)).layers
    layer_losses = screen(layers, {(0, 1): 0.1, (2, 3): 0.2, (0, 2): 0.5, (0, 3): -0.7, (1, 2): 0.3})
    found = places(layers, pairs_to_test(layer_losses, layers, ONNXRUNTIME_CPU_SCHEME, 100))
    assert found == [(2, 3), (0, 1), (0, 3), (0, 2), (1, 2), (1, 3)]


def test_an_uncertain_pair_counts_by_its_error() -> None:
    layers = probed(chain(), samples_for(chain(), 2)).layers
    layer_losses = screen(layers, {(0, 2): 0.5, (0, 3): 0.4}, {(1, 3): 0.3})
    found = places(layers, pairs_to_test(layer_losses, layers, ONNXRUNTIME_CPU_SCHEME, 3))
    assert set(found[:2]) == {(0, 1), (2, 3)}  # shared tensors first
    assert found[2] == (1, 3)


def test_an_output_that_stays_float_is_not_shared() -> None:
    layers = probed(chain(), samples_for(chain(), 2)).layers
    layer_losses = screen(layers, {(0, 3): 0.5})
    assert places(layers, pairs_to_test(layer_losses, layers, TENSORRT_SCHEME, 2)) == [(0, 1), (0, 3)]


def test_the_budget_is_kept_and_one_layer_never_pairs_with_itself() -> None:
    layers = probed(chain(), samples_for(chain(), 2)).layers
    layer_precisions = (*int8(layers), *(LayerPrecision(layer.name, Precision.INT4) for layer in layers))
    layer_losses = LayerLosses(layer_precisions, np.ones((4, 8)), np.ones((8, 8)), np.ones((8, 8)))
    assert len(pairs_to_test(layer_losses, layers, ONNXRUNTIME_CPU_SCHEME, 5)) == 5
    every = pairs_to_test(layer_losses, layers, ONNXRUNTIME_CPU_SCHEME, 1000)
    assert len(every) == 6 * 4  # pairs of layers, times pairs of precisions
    assert all(first < second for first, second in places(layers, every))
    assert pairs_to_test(layer_losses, layers, ONNXRUNTIME_CPU_SCHEME, 0) == ()


def test_pairs_that_no_engine_inside_the_budget_has_or_that_cannot_matter_are_not_tested() -> None:
    layers = probed(chain(), samples_for(chain(), 2)).layers
    plain = screen(layers, {})
    loss = np.ones_like(plain.loss) * [1.0, 1.2, 500.0, 1e-9]  # the third is far out of reach, the fourth next to nothing
    layer_losses = LayerLosses(plain.layer_precisions, loss, plain.gram_sum, plain.gram_square_sum)
    assert places(layers, pairs_to_test(layer_losses, layers, ONNXRUNTIME_CPU_SCHEME, 100, 2.0)) == [(0, 1)]
    assert len(pairs_to_test(layer_losses, layers, ONNXRUNTIME_CPU_SCHEME, 100)) == 6


def test_there_are_fewer_pairs_where_fewer_layers_are_within_reach() -> None:
    layers = probed(chain(), samples_for(chain(), 2)).layers
    plain = screen(layers, {})
    counts = []
    for largest in (1.0, 500.0):  # then within reach, or far out of it
        loss = np.ones_like(plain.loss) * [1.0, 1.0, 1.0, largest]
        layer_losses = LayerLosses(plain.layer_precisions, loss, plain.gram_sum, plain.gram_square_sum)
        counts.append(len(pairs_to_test(layer_losses, layers, ONNXRUNTIME_CPU_SCHEME, 2, 4.0)))
    assert counts == [2, 2]  # rounded up
    loss = np.ones_like(plain.loss) * [1.0, 1.0, 500.0, 500.0]
    layer_losses = LayerLosses(plain.layer_precisions, loss, plain.gram_sum, plain.gram_square_sum)
    assert len(pairs_to_test(layer_losses, layers, ONNXRUNTIME_CPU_SCHEME, 6, 4.0)) == 1


def test_a_pair_is_tested_on_the_samples_that_both_layers_were_probed_on() -> None:
    case = probed(cnn(), samples_for(cnn(), 24))
    wanted = int8(case.layers)
    pairs = [(wanted[0], wanted[1]), (wanted[0], wanted[3])]
    feeds = [{"input": case.feeds["input"][i : i + 8]} for i in (0, 8, 16)]
    reference = case.reference()
    alone = measure_layer_losses(reference, [OutputKind.LOGITS], wanted, feeds)
    known = {item: alone.loss[: 8 if index == 3 else 24, index] for index, item in enumerate(wanted)}
    whole = {item: alone.loss[:, index] for index, item in enumerate(wanted)}
    found = measure_pairs(reference, [OutputKind.LOGITS], case.layers, pairs, feeds, known)
    assert [test.samples for test in found] == [24, 8]
    assert found[0] == measure_pairs(reference, [OutputKind.LOGITS], case.layers, pairs, feeds, whole)[0]
    first = {item: values[:8] for item, values in whole.items()}
    assert found[1] == measure_pairs(reference, [OutputKind.LOGITS], case.layers, pairs, feeds[:1], first)[1]


def test_the_matrix_takes_the_exact_test_where_there_is_one() -> None:
    layers = probed(chain(), samples_for(chain(), 2)).layers
    layer_losses = screen(layers, {(0, 1): 0.1, (0, 2): 0.5}, {(0, 2): 0.2})
    first, second, *_ = layer_losses.layer_precisions
    matrix = dependency_matrix(layer_losses, [PairTest(first, second, dependency=-3.0, error=0.5, samples=9)])
    assert matrix.interaction[0, 1] == matrix.interaction[1, 0] == -3.0
    assert matrix.error[0, 1] == 0.5
    assert matrix.interaction[0, 2] == pytest.approx(1.0)
    assert matrix.error[0, 2] == pytest.approx(0.4)
    assert not np.diag(matrix.interaction).any()
    assert not np.diag(matrix.error).any()


def test_a_test_on_easy_samples_is_brought_to_the_level_of_all() -> None:
    layers = probed(chain(), samples_for(chain(), 2)).layers
    plain = screen(layers, {})
    loss = np.where(np.arange(len(plain.loss)) < 9, 0.5, 1.5)[:, None] * np.ones((1, len(layers)))
    layer_losses = LayerLosses(plain.layer_precisions, loss, plain.gram_sum, plain.gram_square_sum)
    first, second, *_ = layer_losses.layer_precisions
    matrix = dependency_matrix(layer_losses, [PairTest(first, second, dependency=-0.1, error=0.02, samples=9)])
    level = float(loss.mean()) / 0.5
    assert matrix.interaction[1, 0] == pytest.approx(-0.1 * level)
    assert matrix.error[1, 0] == pytest.approx(0.02 * level)


def test_the_pairs_that_share_are_those_that_read_or_write_one_rounded_tensor() -> None:
    layers = probed(chain(), samples_for(chain(), 2)).layers
    assert np.argwhere(np.triu(sharing_pairs(int8(layers), layers, ONNXRUNTIME_CPU_SCHEME))).tolist() == [[0, 1], [2, 3]]
    assert np.argwhere(np.triu(sharing_pairs(int8(layers), layers, TENSORRT_SCHEME))).tolist() == [[0, 1]]  # outputs stay float
    both = (*int8(layers)[:1], LayerPrecision(layers[0].name, Precision.INT4))
    assert not sharing_pairs(both, layers, ONNXRUNTIME_CPU_SCHEME).any()


def test_a_matrix_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="layer precisions"):
        DependencyMatrix((LayerPrecision("a", Precision.INT8),), np.zeros((2, 2)), np.zeros((2, 2)), ())
