"""Which precisions layers may take, and what is given together or not at all."""

from __future__ import annotations

import pytest

from calibration.graph.layers import find_layers
from calibration.number_formats.precision import Precision
from engine_builder.errors import BuildError
from engine_builder.qdq.rules.attention import attention_groups
from engine_builder.qdq.rules.eligibility import Eligibility
from engine_builder.qdq.rules.legalize import legalize
from tests.engine_builder.fake_quantized import model_of
from tests.engine_builder.qdq.networks import ATTENTION, BLOCKS, FLOATS, network

INT8, FP8, INT4, FP16, BF16 = Precision.INT8, Precision.FP8, Precision.INT4, Precision.FP16, Precision.BF16
SHAPES = """
<ir_version: 8, opset_import: ["" : 17]>
shapes (float[N,48] x) => (float[N,64] a, float[N,16] b, float[40,4] c)
<float[48,64] w1, float[64,16] w2, float[40,16] w3, float[16,4] w4>
{
    [uneven] a = MatMul(x, w1)
    [even] b = MatMul(a, w2)
    [turned] t = Transpose <perm = [1, 0]> (b)
    [left] l = MatMul(w3, t)
    [sliced] c = MatMul(b, w4)
}
"""


def offered(text: str) -> dict[str, set[Precision]]:
    found = network(text)
    eligibility = Eligibility(found.model, found.layers)
    return {layer.name: {p for p in (INT8, FP8, INT4, BF16) if eligibility.can_take(layer, p)} for layer in found.layers}


def test_convolutions_take_8_bits_unless_they_are_thin_or_transposed() -> None:
    assert offered(FLOATS) == {"stem": {BF16}, "depthwise": {BF16}, "pointwise": {INT8, FP8, BF16}, "up": set()}


def test_a_sum_takes_8_bits_where_a_weighted_layer_reads_its_input() -> None:
    precisions = offered(BLOCKS)
    assert precisions["sum1"] == {INT8, FP8, BF16}
    assert precisions["sum2"] == {BF16}


def test_int4_is_for_matrices_of_whole_blocks_on_the_right() -> None:
    found = model_of(SHAPES.replace("float[40,4] c", "float[N,4] c"))
    layers = find_layers(found)
    eligibility = Eligibility(found, layers)
    by_name = {layer.name: layer for layer in layers}
    assert {name: eligibility.can_take(layer, INT4) for name, layer in by_name.items()} == {
        "uneven": False,
        "even": True,
        "left": False,
        "sliced": False,
    }
    assert "48 elements" in str(eligibility.refusal(by_name["uneven"], INT4))
    assert not eligibility.can_take(by_name["left"], INT8)


def test_the_products_of_an_attention_are_found_through_scale_and_mask() -> None:
    found = network(ATTENTION)
    assert attention_groups(found.model, found.layers) == (("scores", "context"),)


@pytest.mark.parametrize("asked", [{"scores": INT8}, {"context": FP8}, {"scores": INT8, "context": FP8}])
def test_half_an_attention_stays_at_the_baseline_and_is_told(asked: dict[str, Precision]) -> None:
    found = network(ATTENTION)
    legalized = legalize(found.model, found.layers, asked)
    assert {legalized.precisions[name] for name in ("scores", "context")} == {FP16}
    assert {(change.layer, change.asked, change.given) for change in legalized.changes} == {(n, p, FP16) for n, p in asked.items()}
    assert all("together or not at all" in change.reason for change in legalized.changes)


def test_a_whole_attention_is_left_as_asked() -> None:
    found = network(ATTENTION)
    legalized = legalize(found.model, found.layers, {"scores": FP8, "context": FP8})
    assert legalized.changes == ()
    assert legalized.precisions["scores"] is FP8
    assert legalized.precisions["q"] is FP16


def test_a_sum_follows_the_layer_that_stores_its_input() -> None:
    found = network(BLOCKS)
    assert legalize(found.model, found.layers, {"sum1": INT8, "conv2": INT8}).changes == ()
    for alone in ({"sum1": INT8}, {"sum1": INT8, "conv2": FP8}):
        (change,) = legalize(found.model, found.layers, alone).changes
        assert (change.layer, change.given) == ("sum1", FP16)


def test_what_a_layer_cannot_take_is_refused_with_the_reason() -> None:
    found = network(FLOATS)
    with pytest.raises(BuildError, match=r"'up' .ConvTranspose. has precision int8.*run time"):
        legalize(found.model, found.layers, {"up": INT8})
    with pytest.raises(BuildError, match=r"'depthwise' .Conv. has precision int4.*weights of MatMul and Gemm"):
        legalize(found.model, found.layers, {"depthwise": INT4})


def test_what_a_target_gains_nothing_from_is_never_proposed_and_yet_carried_out() -> None:
    found = network(FLOATS)
    assert offered(FLOATS)["depthwise"] == {BF16}
    assert legalize(found.model, found.layers, {"depthwise": INT8}).precisions["depthwise"] is INT8
