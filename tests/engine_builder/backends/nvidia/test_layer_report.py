"""The builder's layer report, read into kernels."""

from __future__ import annotations

import pytest

from engine_builder.backends.kernels import Kernel, KernelTensor
from engine_builder.backends.nvidia.layer_report import kernels_from_messages
from engine_builder.errors import BuildError


def tensor(name: str, shape: str, dtype: str) -> str:
    return f"{{ Name: {name}, Dimensions: [{shape}], Strides: [1,1], StrideOrder: [1,0], Datatype: {dtype}, Format: (Linear) Row major }}"


def line(name: str, kind: str, inputs: str, constants: str, outputs: str, metadata: str) -> str:
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [ {inputs}], Constants: [ {constants}], Outputs: [ {outputs}], "
        f"TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: {metadata}"
    )


GEMM = line(
    "a/fc_myl0_1",
    "gemm",
    tensor("x, y", "-1,64", "Int8"),
    f"{tensor('w', '64,96', 'Int8')}, {tensor('s', '1', 'Float')}",
    tensor("o", "-1,96", "Half"),
    "[ONNX Layer: a/fc][ONNX Layer: a/fc][ONNX Layer: odd] name]__gemm_from_conv1x1",
)
COPY = (
    "Name: [ShapeHostToDeviceCopy 0], LayerType: ShapeHostToDevice, Inputs: [], Outputs: [ { Name: /b, Location: Device, Dimensions: [1], "
    "Datatype: Int64, Format: not available }], ParameterType: ShapeH2D, TacticValue: 0x0, StreamId: 0, Metadata: "
)
REPORT = f"Layers:\n{COPY}\n{GEMM}\n\nI/O Tensors:\n Name: x, IOMode: Input, DataType: Float, Dimensions: [-1,64]"


def test_kernels_come_with_nodes_formats_and_sizes_in_order() -> None:
    copy, gemm = kernels_from_messages(["Searching for ...", REPORT, "Done"])
    assert copy == Kernel("[ShapeHostToDeviceCopy 0]", "ShapeHostToDevice", (), (), (), (KernelTensor("int64", (1,)),))
    assert gemm == Kernel(
        "a/fc_myl0_1",
        "gemm",
        ("a/fc", "odd] name"),
        (KernelTensor("int8", (-1, 64)),),
        (KernelTensor("int8", (64, 96)), KernelTensor("float", (1,))),
        (KernelTensor("half", (-1, 96)),),
    )


def test_scalar_has_no_sizes() -> None:
    (kernel,) = kernels_from_messages(["Layers:\n" + line("k", "kgen", tensor("x", "", "Half"), "", tensor("y", "4", "Half"), "")])
    assert (kernel.inputs, kernel.nodes) == ((KernelTensor("half", ()),), ())


def test_build_without_a_report_is_an_error() -> None:
    with pytest.raises(BuildError, match="found none"):
        kernels_from_messages(["Engine generation completed"])


def test_line_of_another_form_is_an_error_that_shows_it() -> None:
    with pytest.raises(BuildError, match="Name: k, Kind: gemm"):
        kernels_from_messages(["Layers:\nName: k, Kind: gemm"])
