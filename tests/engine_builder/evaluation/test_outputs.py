"""What outputs hold: which are compared, their kinds, and which the metric reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest

from calibration.accuracy.kinds.part import JudgedOutput, Part
from calibration.accuracy.metrics import Metric, OutputKind
from calibration.errors import InvalidConfigError, InvalidModelError
from calibration.graph_passes.normalize import prepare
from calibration.onnx_model.model_io import output_specs
from engine_builder.evaluation.outputs import ComparedOutputs, check_metric, default_metric, output_kinds, scored_outputs
from tests.called_models import calls_of
from tests.model_text import Array, model_from_text

LOGITS, PROBABILITIES, VALUES, IGNORE = OutputKind.LOGITS, OutputKind.PROBABILITIES, OutputKind.VALUES, OutputKind.IGNORE


def kinds_of(
    model: onnx.ModelProto, wanted: Mapping[str, OutputKind] | None = None, *, is_labelled: bool = False, notes: list[str] | None = None
) -> tuple[OutputKind, ...]:
    """Return the kinds, from real calls."""
    prepared = prepare(model).model
    calls = calls_of(prepared)
    found = [] if notes is None else notes
    return output_kinds(prepared, output_specs(model), calls.outputs, wanted or {}, is_labelled=is_labelled, notes=found)


def taken_for(kinds: Sequence[OutputKind]) -> tuple[JudgedOutput, ...]:
    """Return outputs that are surely of these kinds."""
    return tuple(JudgedOutput(f"y{index}", (kind,), (Part(kind),), "it is so") for index, kind in enumerate(kinds))


def ending_in(nodes: str, shape: str = "N,4") -> onnx.ModelProto:
    return model_from_text(f"g (float[N,6] x) => (float[{shape}] y) {{ h = MatMul(x, w) {nodes} }}", {"w": (6, 4), "b": (4,)})


@pytest.mark.parametrize(
    ("nodes", "kind"),
    [
        ("y = Identity(h)", LOGITS),
        ("y = Add(h, b)", LOGITS),
        ("y = Softmax<axis=1>(h)", PROBABILITIES),
        ("s = Softmax<axis=1>(h) y = Identity(s)", PROBABILITIES),
        ("y = LogSoftmax<axis=1>(h)", LOGITS),
        ("y = Sigmoid(h)", VALUES),
        ("y = Relu(h)", VALUES),
    ],
)
def test_the_last_operator_tells_the_kind(nodes: str, kind: OutputKind) -> None:
    assert kinds_of(ending_in(nodes)) == (kind,)


def test_a_linear_layer_over_several_places_gives_values() -> None:
    model = model_from_text("g (float[N,5,6] x) => (float[N,5,4] y) { y = MatMul(x, w) }", {"w": (6, 4)})
    assert kinds_of(model) == (VALUES,)


def test_labels_make_one_row_of_values_classes() -> None:
    assert kinds_of(ending_in("y = Relu(h)"), is_labelled=True) == (LOGITS,)
    assert kinds_of(ending_in("y = Relu(h)"), {"y": VALUES}, is_labelled=True) == (VALUES,)


def test_labels_leave_other_outputs_alone_where_one_holds_classes() -> None:
    model = model_from_text("g (float[N,6] x) => (float[N,4] a, float[N,4] y) { y = MatMul(x, w) a = Relu(y) }", {"w": (6, 4)})
    kinds = kinds_of(model, is_labelled=True)
    assert kinds == (VALUES, LOGITS)
    assert default_metric(taken_for(kinds), kinds, is_labelled=True) is Metric.TOP1
    assert scored_outputs(Metric.TOP1, kinds) == (1,)


def beside(nodes: str, output: str) -> onnx.ModelProto:
    return model_from_text(f"g (float[N,6] x) => (float[N,4] y, {output} z) {{ y = MatMul(x, w) {nodes} }}", {"w": (6, 4)})


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (beside("z = ArgMax<axis=1, keepdims=0>(y)", "int64[N]"), "output 'z' holds int64"),
        (
            beside("a = Constant<value_ints=[0]>() b = Constant<value_ints=[1]>() z = Slice(y, a, a, b)", "float[N,0]"),
            "output 'z' is empty",
        ),
        (beside("z = ReduceSum<keepdims=0>(y)", "float"), "output 'z' has the shape () for one sample and for 3"),
        (beside("z = Add(w, w)", "float[6,4]"), "output 'z' is the same for all samples"),
        (beside("z = Identity(x)", "float[N,6]"), "output 'z' is the input 'x' handed through"),
    ],
)
def test_outputs_that_cannot_be_compared_are_ignored_and_said(model: onnx.ModelProto, words: str) -> None:
    notes: list[str] = []
    assert kinds_of(model, notes=notes) == (LOGITS, IGNORE)
    assert len(notes) == 1
    assert notes[0].startswith(words)
    assert kinds_of(model, {"z": IGNORE}) == (LOGITS, IGNORE)
    with pytest.raises(InvalidConfigError, match=r"outputs.z: found values, expected ignore"):
        kinds_of(model, {"z": VALUES})


def test_an_output_that_counts_samples_on_another_axis_is_compared() -> None:
    assert kinds_of(beside("z = Transpose<perm=[1,0]>(y)", "float[4,N]")) == (LOGITS, VALUES)


def test_a_model_without_an_output_to_compare_is_refused() -> None:
    model = model_from_text("g (float[N,6] x) => (float[6,4] z) { y = MatMul(x, w) z = Add(w, w) }", {"w": (6, 4)})
    with pytest.raises(InvalidModelError, match="no output can be compared with the float model's: output 'z' is the same"):
        kinds_of(model)


def decisions() -> onnx.ModelProto:
    return model_from_text("g (float[N,6] x) => (int64[N] best) { y = MatMul(x, w) best = ArgMax<axis=1, keepdims=0>(y) }", {"w": (6, 4)})


def test_decisions_are_compared_where_a_model_gives_nothing_else() -> None:
    assert kinds_of(decisions()) == (OutputKind.LABELS,)
    kinds = (OutputKind.LABELS,)
    assert default_metric(taken_for(kinds), kinds, is_labelled=False) is Metric.AGREEMENT
    assert default_metric(taken_for(kinds), kinds, is_labelled=True) is Metric.TOP1


def test_decisions_beside_scores_are_compared_if_the_user_says_so() -> None:
    model = beside("z = ArgMax<axis=1, keepdims=0>(y)", "int64[N]")
    assert kinds_of(model, {"z": OutputKind.LABELS}) == (LOGITS, OutputKind.LABELS)


@pytest.mark.parametrize(
    ("model", "wanted", "words"),
    [
        (decisions(), {"best": VALUES}, "outputs.best: found values, expected ignore or labels: the output holds int64"),
        (ending_in("y = Relu(h)"), {"y": OutputKind.LABELS}, "outputs.y: found labels, expected logits, probabilities, values or ignore"),
    ],
)
def test_a_kind_must_suit_the_type(model: onnx.ModelProto, wanted: Mapping[str, OutputKind], words: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        kinds_of(model, wanted)
    assert caught.value.detail.startswith(words)


def test_an_unknown_output_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidConfigError) as caught:
        kinds_of(ending_in("logits = Identity(h) y = Identity(logits)"), {"Y": VALUES})
    assert caught.value.fix == "Did you mean 'y'?"


@pytest.mark.parametrize(
    ("metric", "kinds", "scored"),
    [
        (Metric.TOP5, (VALUES, PROBABILITIES, LOGITS), (1,)),
        (Metric.TOP1, (VALUES, VALUES), (0,)),
        (Metric.AGREEMENT, (LOGITS, VALUES, LOGITS), (0, 2)),
        (Metric.AGREEMENT, (VALUES, VALUES), (0, 1)),
        (Metric.NMSE, (VALUES, LOGITS), (0, 1)),
    ],
)
def test_a_metric_reads_the_outputs_that_it_is_about(metric: Metric, kinds: tuple[OutputKind, ...], scored: tuple[int, ...]) -> None:
    assert scored_outputs(metric, kinds) == scored


@pytest.mark.parametrize(
    ("kinds", "is_labelled", "metric"),
    [
        ((LOGITS,), True, Metric.TOP1),
        ((LOGITS,), False, Metric.AGREEMENT),
        ((IGNORE, PROBABILITIES), False, Metric.AGREEMENT),
        ((VALUES, LOGITS), False, Metric.FIDELITY),
        ((VALUES,), True, Metric.FIDELITY),
    ],
)
def test_the_metric_follows_the_kinds(kinds: tuple[OutputKind, ...], is_labelled: bool, metric: Metric) -> None:
    assert default_metric(taken_for(kinds), kinds, is_labelled=is_labelled) is metric


def test_an_input_that_hides_positions_makes_classes_a_matter_of_fidelity() -> None:
    assert default_metric(taken_for((LOGITS,)), (LOGITS,), is_labelled=False, hides=True) is Metric.FIDELITY


def test_metrics_that_are_always_perfect_are_refused() -> None:
    with pytest.raises(InvalidConfigError, match="cosine compares directions"):
        check_metric(Metric.COSINE, [np.zeros((8, 1))])
    with pytest.raises(InvalidConfigError, match="top5 is always right among 5 classes"):
        check_metric(Metric.TOP5, [np.zeros((8, 5))])
    check_metric(Metric.COSINE, [np.zeros((8, 1)), np.zeros((8, 2))])
    check_metric(Metric.TOP5, [np.zeros((8, 6))])


def test_the_metric_kl_is_refused_for_scores_that_are_no_distribution() -> None:
    sigmoids = np.zeros((8, 5))
    with pytest.raises(InvalidConfigError, match=r"found scores in 0\.\.1, each by itself, in the output 'y0'") as refused:
        check_metric(Metric.KL, [sigmoids], taken_for((OutputKind.SCORES,)))
    assert "decisions or closeness" in refused.value.fix
    check_metric(Metric.KL, [sigmoids], taken_for((PROBABILITIES,)))
    check_metric(Metric.AGREEMENT, [sigmoids], taken_for((OutputKind.SCORES,)))


class FixedRunner:
    """Returns three fixed outputs and remembers that it was closed."""

    def __init__(self) -> None:
        self.is_closed = False

    def run(self, feeds: Mapping[str, Array]) -> tuple[Array, ...]:
        return tuple(np.full(2, value) for value in (1, 2, 3))

    def close(self) -> None:
        self.is_closed = True


def test_only_compared_outputs_are_returned() -> None:
    inner = FixedRunner()
    runner = ComparedOutputs(inner, (0, 2))
    assert [array[0] for array in runner.run({})] == [1, 3]
    runner.close()
    assert inner.is_closed
