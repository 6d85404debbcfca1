"""What every dialect promises, and what each writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import onnx
import pytest

from calibration.graph.layers import LayerKind
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, TENSORRT_SCHEME, Precision, Scheme
from engine_builder.errors import BuildError
from engine_builder.qdq.dialects.base import Dialect, ExplicitPlan
from engine_builder.qdq.dialects.onnxruntime import OnnxRuntimeDialect
from engine_builder.qdq.dialects.tensorrt import TensorRtDialect
from engine_builder.qdq.onnxruntime_dialect import rewrite
from engine_builder.qdq.tensorrt_dialect import kept_in_float32, rewrite_tensorrt
from tests.engine_builder.qdq.networks import ATTENTION, BLOCKS, Network, network

FP16, FP32, INT8, INT4 = Precision.FP16, Precision.FP32, Precision.INT8, Precision.INT4


@pytest.fixture(scope="module")
def blocks() -> Network:
    return network(BLOCKS)


def plan_of(found: Network, scheme: Scheme, baseline: Precision, **precisions: Precision) -> ExplicitPlan:
    return ExplicitPlan(found.model, found.layers, precisions, found.ranges, scheme, baseline)


def unread() -> onnx.ModelProto:
    raise AssertionError("the model was read")


class DialectContract:
    """What the pipeline relies on, whatever the dialect."""

    dialect: Callable[[], Dialect]
    scheme: Scheme
    baseline: Precision

    def test_it_leaves_the_prepared_model_as_it_is(self, blocks: Network) -> None:
        before = blocks.model.SerializeToString()
        self.dialect().explicit(plan_of(blocks, self.scheme, self.baseline, conv2=INT8))
        assert blocks.model.SerializeToString() == before

    def test_its_own_graphs_pass_its_check_and_can_be_simulated(self, blocks: Network) -> None:
        dialect = self.dialect()
        explicit = dialect.explicit(plan_of(blocks, self.scheme, self.baseline, conv2=INT8))
        dialect.check(explicit, compute_capability=(8, 9))
        assert [value.name for value in dialect.simulated(explicit).graph.output] == [value.name for value in blocks.model.graph.output]

    def test_what_a_layer_can_take_has_a_form(self, blocks: Network) -> None:
        dialect = self.dialect()
        eligibility = dialect.eligibility(blocks.model, blocks.layers)
        eligible = [layer for layer in blocks.layers if layer.kind is LayerKind.WEIGHTED and eligibility.can_take(layer, INT8)]
        assert eligible
        for layer in eligible:
            dialect.explicit(plan_of(blocks, self.scheme, self.baseline, **{layer.name: INT8}))

    def test_an_unknown_layer_is_refused(self, blocks: Network) -> None:
        with pytest.raises(BuildError, match="'conv9' is not in the model"):
            self.dialect().explicit(plan_of(blocks, self.scheme, self.baseline, conv9=INT8))


class TestOnnxRuntime(DialectContract):
    dialect, scheme, baseline = OnnxRuntimeDialect, ONNXRUNTIME_CPU_SCHEME, FP32

    def test_it_writes_the_graph_of_its_rewriting(self, blocks: Network) -> None:
        explicit = OnnxRuntimeDialect().explicit(plan_of(blocks, self.scheme, FP32, conv2=INT8))
        assert explicit == rewrite(blocks.model, blocks.layers, {"conv2": INT8}, blocks.ranges, self.scheme)

    def test_it_has_no_types_of_its_own(self, blocks: Network) -> None:
        with pytest.raises(BuildError, match="expected fp32"):
            OnnxRuntimeDialect().explicit(plan_of(blocks, self.scheme, FP16))

    def test_layers_are_given_as_asked_without_a_look_at_the_model(self, blocks: Network) -> None:
        assert OnnxRuntimeDialect().legalized(unread, blocks.layers, {"conv2": INT8}, FP32) == {"conv2": INT8}

    def test_it_has_no_form_for_weights_alone(self, blocks: Network) -> None:
        eligibility = OnnxRuntimeDialect().eligibility(blocks.model, blocks.layers)
        assert not any(eligibility.can_take(layer, INT4) for layer in blocks.layers)


class TestTensorRt(DialectContract):
    dialect, scheme, baseline = TensorRtDialect, TENSORRT_SCHEME, FP16

    def test_it_writes_the_graph_of_its_rewriting(self, blocks: Network) -> None:
        explicit = TensorRtDialect().explicit(plan_of(blocks, self.scheme, FP16, conv2=INT8))
        assert explicit == rewrite_tensorrt(blocks.model, blocks.layers, {"conv2": INT8}, blocks.ranges)

    def test_the_types_of_single_nodes_reach_the_graph(self, blocks: Network) -> None:
        plan = plan_of(blocks, self.scheme, FP16, conv2=INT8)
        explicit = TensorRtDialect().explicit(replace(plan, floats={"conv2": FP32}))
        assert explicit == rewrite_tensorrt(blocks.model, blocks.layers, {"conv2": INT8}, blocks.ranges, floats={"conv2": FP32})

    def test_one_product_of_an_attention_alone_is_left_at_the_baseline(self) -> None:
        found, dialect = network(ATTENTION), TensorRtDialect()
        [group] = dialect.groups(found.model, found.layers)
        one, both = {group[0]: INT8}, dict.fromkeys(group, INT8)
        assert dialect.legalized(lambda: found.model, found.layers, one, FP16) == {}
        assert dialect.legalized(lambda: found.model, found.layers, both, FP16) == both

    def test_what_fp16_cannot_hold_is_named(self) -> None:
        found = network(ATTENTION)
        ranges = {**found.ranges, found.layers[0].output: (-1e6, 1e6)}
        kept = TensorRtDialect().float32_nodes(found.model, ranges, baseline=FP16)
        assert found.layers[0].name in kept
        assert kept == kept_in_float32(found.model, ranges, baseline=FP16)
