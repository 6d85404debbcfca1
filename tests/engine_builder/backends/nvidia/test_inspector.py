"""Kernels are read from the inspector's JSON of TensorRT 11 and of TensorRT 10."""

from __future__ import annotations

import json

import pytest

from engine_builder.backends.kernels import Kernel, KernelTensor
from engine_builder.backends.nvidia.inspector import kernels_from_inspector
from engine_builder.errors import EngineError

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


def test_engine_with_names_only_gives_kernels_without_tensors() -> None:
    assert kernels_from_inspector('{"Layers": ["conv1", "pool"]}') == (
        Kernel("conv1", "", (), (), (), ()),
        Kernel("pool", "", (), (), (), ()),
    )


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"Bindings": []}', '{"Layers": [3]}', '{"Layers": [{"LayerType": "kgen"}]}'])
def test_unknown_form_is_shown_in_the_error(text: str) -> None:
    with pytest.raises(EngineError, match="no list of layers"):
        kernels_from_inspector(text)
