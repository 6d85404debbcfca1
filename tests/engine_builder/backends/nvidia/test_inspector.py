"""Kernels are read from the inspector's JSON of TensorRT 11 and of TensorRT 10."""

from __future__ import annotations

import json

import pytest

from calibration.number_formats.precision import Precision
from engine_builder.backends.achieved_precision import Rule, achieved_precisions
from engine_builder.backends.gpu.catalogue import gpu_by_name
from engine_builder.backends.kernels import UNKNOWN, Kernel, KernelTensor
from engine_builder.backends.nvidia.inspector import kernels_from_inspector
from engine_builder.backends.nvidia.roofline import predicted_latency
from engine_builder.errors import EngineError


def test_kernels_are_those_of_one_profile() -> None:
    names = ["conv1", "relu", "conv1 [profile 1]", "relu [profile 1]"]
    text = json.dumps({"Layers": [{"Name": name} for name in names]})
    assert [kernel.name for kernel in kernels_from_inspector(text)] == names[:2]
    assert [kernel.name for kernel in kernels_from_inspector(text, 1)] == names[2:]
    assert [kernel.name for kernel in kernels_from_inspector(json.dumps({"Layers": names[:2]}), 1)] == names[:2]  # not told apart


# As TensorRT 11 writes a quantized convolution with its Relu, and a layer that only moves data.
VERSION_11 = {
    "Layers": [
        {
            "Name": "conv1_myl0_2",
            "LayerType": "correlation",
            "Inputs": [{"Name": "x", "Dimensions": [1, 3, 8, 8], "Datatype": "Int8", "Format": "(NHWC) Channel major format"}],
            "Constants": [
                {"Name": "w", "Dimensions": [4, 3, 3, 3], "Datatype": "Int8", "Format": "(NHWC)"},
                {"Name": "b", "Dimensions": [4], "Datatype": "Float", "Format": "Linear"},
            ],
            "Outputs": [{"Name": "y", "Dimensions": [1, 4, 6, 6], "Datatype": "Half", "Format": "(NHWC)"}],
            "TacticName": "sm89_xmma",
            "StreamId": 0,
            "Metadata": "[ONNX Layer: conv1]\x1f[ONNX Layer: relu[0]]\x1e[ONNX Layer: conv1]",
        },
        {"Name": "move", "LayerType": "kgen", "Inputs": [], "Constants": [], "Outputs": [], "Metadata": ""},
    ],
    "I/O Tensors": [],
}
VERSION_10 = {
    "Layers": [
        {
            "Name": "conv1 + relu",
            "LayerType": "CaskConvolution",
            "Inputs": [
                {"Name": "x", "Dimensions": [1, 3, 8, 8], "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}
            ],
            "Outputs": [{"Name": "y", "Dimensions": [1, 4, 6, 6], "Format/Datatype": "Row major linear FP16 format"}],
            "Weights": {"Type": "Int8", "Count": 108},
            "Metadata": "[ONNX Layer: conv1]",
        },
        {"Name": "pool", "LayerType": "CaskPooling", "Inputs": [], "Outputs": [], "Weights": {"Type": "Int8", "Count": 0}, "Metadata": ""},
    ],
    "Bindings": ["x", "y"],
}


def test_tensors_and_nodes_of_version_11() -> None:
    convolution, move = kernels_from_inspector(json.dumps(VERSION_11))
    assert convolution == Kernel(
        name="conv1_myl0_2",
        kind="correlation",
        nodes=("conv1", "relu[0]"),
        inputs=(KernelTensor("int8", (1, 3, 8, 8)),),
        constants=(KernelTensor("int8", (4, 3, 3, 3)), KernelTensor("float", (4,))),
        outputs=(KernelTensor("half", (1, 4, 6, 6)),),
        tactic="sm89_xmma",
    )
    assert move.nodes == ()


def test_number_formats_are_found_in_the_sentences_of_version_10() -> None:
    convolution, pool = kernels_from_inspector(json.dumps(VERSION_10))
    assert convolution.inputs == (KernelTensor("int8", (1, 3, 8, 8)),)
    assert convolution.constants == (KernelTensor("int8", (108,)),)
    assert convolution.outputs == (KernelTensor("half", (1, 4, 6, 6)),)
    assert pool.constants == ()


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("Float", "float"),
        ("Half", "half"),
        ("BFloat16", "bfloat16"),
        ("Row major linear BF16 format", "bfloat16"),
        ("Int8", "int8"),
        ("UInt8", "uint8"),
        ("FP8", "fp8"),
        ("Int4", "int4"),
        ("FP4E2M1", "fp4"),
        ("Two wide channel vectorized row major FP16 format", "half"),
        ("Row major linear FP32 format (kLINEAR)", "float"),
        ("E8M0", "e8m0"),
    ],
)
def test_words_for_number_formats(said: str, meant: str) -> None:
    layer = {"Name": "k", "LayerType": "kgen", "Inputs": [{"Dimensions": [2], "Datatype": said}], "Metadata": ""}
    assert kernels_from_inspector(json.dumps({"Layers": [layer]}))[0].inputs == (KernelTensor(meant, (2,)),)


def test_engine_with_names_only_gives_kernels_named_after_their_nodes() -> None:
    assert kernels_from_inspector('{"Layers": ["conv1 + relu", "pool"]}') == (
        Kernel("conv1 + relu", "", ("conv1", "relu"), (), (), ()),
        Kernel("pool", "", ("pool",), (), (), ()),
    )


@pytest.mark.parametrize(
    ("layer_type", "parameter_type", "kind"),
    [
        ("CaskConvolution", "Convolution", "correlation"),
        ("CaskGemmConvolution", "Convolution", "correlation"),
        ("CaskConvActPool", "ConvActPool", "correlation"),
        ("CudaDepthwiseConvolution", "Convolution", "correlation"),
        ("CaskDeconvolutionV2", "Convolution", "deconv"),
        ("CaskGemmMatrixMultiply", "MatrixMultiply", "gemm"),
        ("CublasLtMatrixMultiply", "MatrixMultiply", "gemm"),
        ("CaskFullyConnected", "FullyConnected", "gemm"),
        ("correlation", "", "correlation"),
        ("gemm", "", "gemm"),
        ("deconv", "", "deconv"),
        ("kgen", "", "kgen"),
        ("Myelin", "", "Myelin"),
        ("CudaPooling", "Pooling", "CudaPooling"),
    ],
)
def test_layers_of_both_compilers_have_one_word_for_what_multiplies(layer_type: str, parameter_type: str, kind: str) -> None:
    layer = {"Name": "k", "LayerType": layer_type, "ParameterType": parameter_type, "Metadata": ""}
    assert kernels_from_inspector(json.dumps({"Layers": [layer]}))[0].kind == kind


def layer_of_10(layer_type: str, said: str, weights: object, **more: object) -> dict[str, object]:
    """Return a layer that runs the node ``n``, in the form of version 10."""
    tensor = {"Name": "x", "Location": "Device", "Dimensions": [2, 8, 4, 4], "Format/Datatype": said}
    return {
        "Name": "n + relu",
        "LayerType": layer_type,
        "Inputs": [tensor],
        "Outputs": [{**tensor, "Name": "y", "Dimensions": [2, 16, 4, 4]}],
        "Weights": weights,
        "TacticValue": "0x1",
        "Metadata": "[ONNX Layer: n]\x1e[ONNX Layer: relu]",
        **more,
    }


CONVOLUTION_OF_10 = {"ParameterType": "Convolution", "Kernel": [3, 3], "OutMaps": 16, "Groups": 1, "Bias": {"Type": "Float", "Count": 16}}
INT8_SENTENCE, FP16_SENTENCE = (
    "Thirty-two wide channel vectorized row major Int8 format",
    "Channel major FP16 format where channel % 8 == 0",
)
UNSAID = "N/A due to dynamic shapes"


@pytest.mark.parametrize(
    ("layer", "got", "reason"),
    [
        (layer_of_10("CaskConvolution", INT8_SENTENCE, {"Type": "Int8", "Count": 1152}, **CONVOLUTION_OF_10), Precision.INT8, None),
        (layer_of_10("CaskConvActPool", INT8_SENTENCE, {"Type": "Int8", "Count": 1152}, **CONVOLUTION_OF_10), Precision.INT8, None),
        (
            layer_of_10("CaskConvolution", FP16_SENTENCE, {"Type": "Half", "Count": 1152}, **CONVOLUTION_OF_10),
            Precision.FP16,
            Rule.NOT_QUANTIZED,
        ),
        (
            layer_of_10("CaskConvolution", FP16_SENTENCE, {"Type": "Half", "Count": 144}, **{**CONVOLUTION_OF_10, "Groups": 16}),
            Precision.FP16,
            Rule.DEPTHWISE,
        ),
        (
            layer_of_10("CaskDeconvolutionV2", FP16_SENTENCE, {"Type": "Half", "Count": 1152}, **CONVOLUTION_OF_10),
            Precision.FP16,
            Rule.TRANSPOSED,
        ),
        (layer_of_10("CaskGemmMatrixMultiply", INT8_SENTENCE, {"Type": "Int8", "Count": 64}), Precision.INT8, None),
        (layer_of_10("CaskConvolution", UNSAID, {"Type": "Int8", "Count": 1152}, **CONVOLUTION_OF_10), None, Rule.UNKNOWN),
        (layer_of_10("CaskConvolution", INT8_SENTENCE, {"Type": "Something", "Count": 1152}), None, Rule.UNKNOWN),
        (layer_of_10("CaskConvolution", INT8_SENTENCE, 7), None, Rule.UNKNOWN),
        (layer_of_10("Myelin", FP16_SENTENCE, {"Type": "Half", "Count": 0}), None, Rule.UNKNOWN),  # a whole region may hold anything
        (layer_of_10("PluginV3", FP16_SENTENCE, None), None, Rule.UNKNOWN),
        (layer_of_10("PointWiseV2", FP16_SENTENCE, None), Precision.FP16, Rule.POINTWISE),
        (layer_of_10("PointWiseV2", UNSAID, None), None, Rule.UNKNOWN),
    ],
)
def test_what_a_layer_got_is_read_or_unknown_and_never_float32(
    layer: dict[str, object], got: Precision | None, reason: Rule | None
) -> None:
    (found,) = achieved_precisions(kernels_from_inspector(json.dumps({"Layers": [layer]})), {"n": Precision.INT8})
    assert (found.got, found.reason) == (got, reason)


def test_a_weight_of_version_10_has_the_shape_that_its_layer_gives_it() -> None:
    def shape(layer: dict[str, object]) -> tuple[int, ...]:
        (kernel,) = kernels_from_inspector(json.dumps({"Layers": [layer]}))
        return kernel.constants[0].shape

    assert shape(layer_of_10("CaskConvolution", FP16_SENTENCE, {"Type": "Half", "Count": 1152}, **CONVOLUTION_OF_10)) == (16, 8, 3, 3)
    assert shape(layer_of_10("CaskDeconvolutionV2", FP16_SENTENCE, {"Type": "Half", "Count": 1152}, **CONVOLUTION_OF_10)) == (8, 16, 3, 3)
    assert shape(layer_of_10("CaskGemmMatrixMultiply", FP16_SENTENCE, {"Type": "Half", "Count": 64})) == (16, 4)
    assert shape(layer_of_10("CaskConvolution", FP16_SENTENCE, {"Type": "Half", "Count": 1000}, **CONVOLUTION_OF_10)) == (1000,)


def test_numbers_among_constants_are_passed_over() -> None:
    layer = {"Name": "k", "LayerType": "kgen", "Metadata": "[ONNX Layer: n]", "Inputs": [{"Dimensions": [2], "Datatype": "Half"}]}
    for constants in ([0.5, 3], 4, {"Value": 1.0}, None, ["scale"]):
        (kernel,) = kernels_from_inspector(json.dumps({"Layers": [{**layer, "Constants": constants}]}))
        assert kernel.constants == ()
        assert kernel.inputs == (KernelTensor("half", (2,)),)


@pytest.mark.parametrize("sizes", ["2x3", [2, None], {"N": 2}, None])
def test_sizes_that_are_no_numbers_are_not_said(sizes: object) -> None:
    layer = {"Name": "k", "LayerType": "gemm", "Metadata": "", "Inputs": [{"Dimensions": sizes, "Datatype": "Half"}], "Outputs": "y"}
    assert kernels_from_inspector(json.dumps({"Layers": [layer]}))[0].inputs == (KernelTensor("half", ()),)


@pytest.mark.parametrize("text", ["no JSON", "", "[]", '{"Bindings": []}', '{"Layers": 3}', '{"Layers": {"conv": 1}}'])
def test_a_text_without_layers_gives_no_kernels_and_a_warning(text: str, caplog: pytest.LogCaptureFixture) -> None:
    assert kernels_from_inspector(text) == ()
    assert "inspector" in caplog.text


@pytest.mark.parametrize("layer", [3, None, ["conv"], {}, {"LayerType": "kgen"}])
def test_a_layer_that_cannot_be_read_is_a_kernel_of_which_nothing_is_known(layer: object) -> None:
    (kernel,) = kernels_from_inspector(json.dumps({"Layers": [layer]}))
    assert (kernel.name, kernel.inputs, kernel.outputs) == (UNKNOWN, (), ())
    (found,) = achieved_precisions((kernel,), {"n": Precision.INT8})
    assert found.got is None


def test_the_roofline_does_without_a_kernel_whose_formats_are_not_said() -> None:
    kernels = kernels_from_inspector(json.dumps({"Layers": [layer_of_10("CaskConvolution", UNSAID, None)]}))
    with pytest.raises(EngineError, match="a number format that the builder does not say"):
        predicted_latency(kernels, gpu_by_name("L4"))
