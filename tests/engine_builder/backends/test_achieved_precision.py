"""Asked for against got, on hand-written kernels; test_tensorrt_rtx.py has the builder's own."""

from __future__ import annotations

import pytest

from calibration.number_formats.precision import Precision
from engine_builder.backends.achieved_precision import AchievedPrecision, Rule, achieved_precisions
from engine_builder.backends.kernels import Kernel, KernelTensor


def kernel(name: str, kind: str, nodes: str, inputs: tuple[str, ...], constants: tuple[str, ...] = (), rank: int = 2) -> Kernel:
    shape = (8,) * rank

    def tensors(dtypes: tuple[str, ...]) -> tuple[KernelTensor, ...]:
        return tuple(KernelTensor(dtype, shape) for dtype in dtypes)

    return Kernel(name, kind, tuple(nodes.split()), tensors(inputs), tensors(constants), tensors(("half",)))


def only(kernels: list[Kernel], node: str, asked: Precision) -> tuple[Precision | None, Rule | None]:
    (found,) = achieved_precisions(kernels, {node: asked})
    assert (found.layer, found.asked) == (node, asked)
    return found.got, found.reason


def test_what_was_asked_for_needs_no_reason() -> None:
    kernels = [
        kernel("fc_myl0_1", "gemm", "fc a b", ("int8",), ("int8", "float")),
        kernel("__myl_MulAdd_myl0_2", "kgen", "fc relu", ("half",)),
    ]
    assert only(kernels, "fc", Precision.INT8) == (Precision.INT8, None)
    assert achieved_precisions(kernels, {"fc": Precision.INT8})[0].kernel == "fc_myl0_1"


def test_merged_products_are_found_by_each_name() -> None:
    kernels = [kernel("v_U5+k_U11+q_U14_myl0_1", "gemm", "v k q", ("half",), ("half",))]
    assert {found.got for found in achieved_precisions(kernels, dict.fromkeys("vkq", Precision.FP16))} == {Precision.FP16}


def test_kernel_named_after_the_node_wins_over_one_that_merely_lists_it() -> None:
    kernels = [
        kernel("first_myl0_0", "correlation", "first second", ("half",), ("half",), 4),
        kernel("second_myl0_1", "correlation", "second", ("int8",), ("int8",), 4),
    ]
    assert only(kernels, "second", Precision.INT8) == (Precision.INT8, None)


def test_int4_is_about_the_weight() -> None:
    assert only([kernel("__myl_Fc_0", "runtime_fusion", "m", ("half",), ("int4",))], "m", Precision.INT4) == (Precision.INT4, None)


ATTENTION = kernel("_gemm_mha_v2_myl0_2", "kgen", "scores softmax mixed", ("half", "half", "bool", "half"), rank=3)


@pytest.mark.parametrize(
    ("kernels", "asked", "got", "rule"),
    [
        ([], Precision.INT8, None, Rule.FOLDED),
        ([kernel("__myl_Mul_0", "kgen", "n", ("half",))], Precision.INT8, Precision.FP16, Rule.POINTWISE),
        ([kernel("n_0", "runtime_fusion", "n", ("half",), ("int8",))], Precision.INT8, Precision.FP16, Rule.WEIGHT_ONLY),
        ([kernel("n_0", "gemm", "n", ("int8",), ("half",))], Precision.INT8, Precision.FP16, Rule.FLOAT_WEIGHT),
        ([kernel("n_0", "deconv", "n", ("half", "half"), (), 4)], Precision.INT8, Precision.FP16, Rule.TRANSPOSED),
        ([kernel("n_0", "gemm", "n", ("half",), ("half",))], Precision.FP8, Precision.FP16, Rule.NOT_QUANTIZED),
        ([kernel("n_0", "gemm", "n", ("int8",), ("int8",))], Precision.FP16, Precision.INT8, Rule.OTHER_LOW_PRECISION),
        ([kernel("n_0", "gemm", "n", ("float",), ("float",))], Precision.FP16, Precision.FP32, Rule.OTHER_FLOAT),
    ],
)
def test_each_difference_has_its_rule(kernels: list[Kernel], asked: Precision, got: Precision | None, rule: Rule) -> None:
    assert only(kernels, "n", asked) == (got, rule)


def test_depthwise_convolution_in_floating_point_has_a_rule() -> None:
    conv = Kernel(
        "d_0",
        "correlation",
        ("d",),
        (KernelTensor("half", (1, 32, 8, 8)),),
        (KernelTensor("half", (32, 1, 3, 3)),),
        (KernelTensor("half", (1, 32, 8, 8)),),
    )
    assert only([conv], "d", Precision.INT8) == (Precision.FP16, Rule.DEPTHWISE)


def test_attention_is_quantized_only_with_queries_keys_and_values() -> None:
    quantized = kernel("_gemm_mha_v2_myl0_2", "kgen", "scores", ("int8", "int8", "bool", "int8"), rank=3)
    half_keys = kernel("_gemm_mha_v2_myl0_2", "kgen", "scores", ("int8", "half", "int8"), rank=3)
    assert only([quantized], "scores", Precision.INT8) == (Precision.INT8, None)
    assert only([half_keys], "scores", Precision.INT8) == (Precision.FP16, Rule.ATTENTION)
    assert only([ATTENTION], "mixed", Precision.INT8) == (Precision.FP16, Rule.ATTENTION)


def test_difference_without_a_reason_cannot_be_written_down() -> None:
    with pytest.raises(ValueError, match="expected a reason iff they differ"):
        AchievedPrecision("n", Precision.INT8, Precision.FP16, "k", None)


def test_masks_in_front_of_queries_and_keys_are_not_taken_for_them() -> None:
    masked = kernel("_gemm_mha_v2_myl0_17", "kgen", "scores", ("bool", "bool", "int8", "int8", "int8"), rank=3)
    assert only([masked], "scores", Precision.INT8) == (Precision.INT8, None)


def test_the_tactic_of_the_kernel_is_told_where_the_builder_says_it() -> None:
    half = (KernelTensor("half", (8, 8)),)
    product = Kernel("k", "gemm", ("fc",), half, half, half, tactic="sm89_xmma_gemm")
    kernels = [product, Kernel("r", "kgen", ("relu",), half, (), half, tactic="0x1")]
    rows = achieved_precisions(kernels, {"fc": Precision.FP16, "relu": Precision.FP16, "gone": Precision.FP16})
    assert [row.tactic for row in rows] == ["sm89_xmma_gemm", "0x1", None]
