from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from calibration.errors import InvalidModelError
from calibration.onnx_model.model_io import TensorSpec, input_specs, output_specs, read_model, save_model
from tests import models, unusable_models
from tests.model_text import ModelMaker, cnn, one_batch, run
from tests.models import AWKWARD

AGAIN = "Upload the .onnx file that your exporter wrote (for PyTorch: torch.onnx.export)."
FLOAT_MODEL = "Upload the float model that it was made from; this tool decides the precisions itself."


def refusal(path: Path) -> InvalidModelError:
    with pytest.raises(InvalidModelError) as caught:
        read_model(path)
    return caught.value


def refusal_of_model(model: onnx.ModelProto, folder: Path) -> InvalidModelError:
    onnx.save(model, folder / "model.onnx")
    return refusal(folder / "model.onnx")


def with_external_data(folder: Path, **entries: str) -> Path:
    """Save the small network with the weight w2 kept elsewhere, at ``entries``."""
    model = cnn()
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "w2")
    (folder / "weights.bin").write_bytes(b"head" + tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in ({"location": "weights.bin", "offset": "4", "length": "576"} | entries).items():
        tensor.external_data.add(key=key, value=value)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize("maker", AWKWARD.values(), ids=AWKWARD)
def test_awkward_model_is_read_as_it_is(maker: ModelMaker, tmp_path: Path) -> None:
    model = maker()
    onnx.save(model, tmp_path / "model.onnx")

    assert read_model(tmp_path / "model.onnx") == model


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"PK\x03\x04rest of a checkpoint", "found a zip archive (a PyTorch checkpoint?)"),
        (b"\x80\x04\x95 pickled", "found a Python pickle"),
        (b"\x89HDF\r\n\x1a\n", "found an HDF5 file"),
        (b"<!DOCTYPE html>", "found HTML or XML"),
        (b'{"graph": []}', "found JSON"),
        (b"\x1c\x00\x00\x00TFL3", "found a TensorFlow Lite model"),
        (b"version https://git-lfs.github.com/spec/v1\n", "found a Git LFS pointer, not the file it stands for"),
        (b"hello, this is no model\n", "found other data"),
        (b"\x08\x08", "found other data"),
    ],
)
def test_file_that_is_no_onnx_model_is_named_for_what_it_is(data: bytes, found: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(data)

    error = refusal(tmp_path / "model.onnx")

    assert error.detail == f"model file 'model.onnx': is not an ONNX model: {found}"
    assert error.fix == AGAIN


def test_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()

    assert refusal(tmp_path / "model.onnx").detail == "model file 'model.onnx': is empty"


def test_missing_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.onnx").detail == "model file 'none.onnx': cannot be read: No such file or directory"


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_truncated_model_is_refused_with_both_sizes(kept: float, tmp_path: Path) -> None:
    data = cnn().SerializeToString()
    (tmp_path / "model.onnx").write_bytes(data[: int(len(data) * kept)])

    error = refusal(tmp_path / "model.onnx")

    start = f"model file 'model.onnx': is truncated: {int(len(data) * kept)} bytes found, at least "
    assert error.detail.startswith(start)
    assert int(error.detail.removeprefix(start).split()[0]) <= len(data)
    assert error.fix == "The copy is not complete: copy or upload the file again and compare its size with the original."


@pytest.mark.parametrize(
    ("maker", "what"),
    [
        (unusable_models.quantize_linear, "node that makes 'q' is a QuantizeLinear"),
        (unusable_models.dequantized_weight, "node that makes 'w' is a DequantizeLinear"),
        (unusable_models.qlinear_conv, "node that makes 'y' is a QLinearConv"),
        (unusable_models.conv_integer, "node that makes 'y' is a ConvInteger"),
        (unusable_models.matmul_integer, "node that makes 'y' is a MatMulInteger"),
        (unusable_models.dynamic_quantize, "node that makes 'y' is a DynamicQuantizeLinear"),
        (unusable_models.narrow_weight, "weight 'packed' is int4"),
    ],
)
def test_quantized_model_is_refused(maker: ModelMaker, what: str, tmp_path: Path) -> None:
    error = refusal_of_model(maker(), tmp_path)

    assert error.detail == f"model: is already quantized: {what}, expected a float model"
    assert error.fix == FLOAT_MODEL


@pytest.mark.parametrize(
    ("maker", "detail", "fix"),
    [
        (
            unusable_models.custom_domain,
            "model: node that makes 'y' uses operator 'Magic' of the custom domain 'com.example', "
            f"which onnxruntime {onnxruntime.__version__} does not have",
            "Export without custom operators, or replace them by operators of ONNX or onnxruntime; libraries are not loaded.",
        ),
        (
            unusable_models.unknown_operator,
            "model: node that makes 'y' uses operator 'Flurb', which ONNX opset 17 does not have",
            "Export at an opset that has the operator, or replace it by standard ONNX operators.",
        ),
        (
            unusable_models.operator_of_a_later_opset,
            "model: node that makes 'y' uses operator 'Gelu', which ONNX opset 17 does not have",
            "Export at an opset that has the operator, or replace it by standard ONNX operators.",
        ),
        (unusable_models.opset_too_old, "model: opset 6 found, 7 or later expected", "Export the model again at opset 17."),
        (
            unusable_models.sparse_weight,
            "model: holds sparse weights (sparse_initializer), expected dense ones",
            "Export the model with dense weights (for PyTorch: call .to_dense() first).",
        ),
        (unusable_models.no_nodes, "model: the graph has no nodes", "Export the whole network, not only its weights."),
        (unusable_models.no_inputs, "model: has no inputs, expected at least one", "Export the model with its inputs as graph inputs."),
        (
            unusable_models.string_input,
            "input 'words': element type string found, expected a number type that numpy has",
            "Export the model with float32, float16, integer or bool inputs and outputs.",
        ),
        (
            unusable_models.bfloat16_input,
            "input 'x': element type bfloat16 found, expected a number type that numpy has",
            "Export the model with float32, float16, integer or bool inputs and outputs.",
        ),
        (
            unusable_models.sequence_input,
            "input 'x': is a sequence, expected a tensor",
            "Export the model with tensor inputs and outputs only.",
        ),
        (
            unusable_models.only_scalars,
            "input 't': is a scalar, and no other input has an axis; one that takes samples expected",
            "Export the model with its data as an input that has a batch axis.",
        ),
        (
            unusable_models.wrong_weight_size,
            "tensor 'w1': 140 bytes found, 144 expected for shape [4, 1, 3, 3]",
            "The file is damaged: export or copy the model again.",
        ),
    ],
)
def test_model_that_cannot_be_used_is_refused(maker: ModelMaker, detail: str, fix: str, tmp_path: Path) -> None:
    error = refusal_of_model(maker(), tmp_path)

    assert (error.detail, error.fix) == (detail, fix)


def test_graph_that_breaks_the_standard_is_refused(tmp_path: Path) -> None:
    error = refusal_of_model(unusable_models.dangling_tensor(), tmp_path)

    assert error.detail.startswith(
        "model: breaks the ONNX standard: Nodes in a graph must be topologically sorted, however input 'nowhere'"
    )
    assert error.fix == "Export the model again; check it with onnx.checker.check_model."


def test_opset_too_new_is_refused_with_the_newest_that_works(tmp_path: Path) -> None:
    error = refusal_of_model(unusable_models.opset_too_new(), tmp_path)

    assert error.detail.startswith("model: opset 99 found, ")
    newest = int(error.detail.removeprefix("model: opset 99 found, ").split()[0])
    assert 17 <= newest < 99
    assert error.fix == "Export the model at opset 17."


def test_ir_version_too_new_is_refused_with_the_newest_that_works(tmp_path: Path) -> None:
    error = refusal_of_model(unusable_models.ir_version_too_new(), tmp_path)

    assert error.detail.startswith("model: IR version 99 found, ")
    assert error.fix == "Load the file with the onnx package, set model.ir_version = 10 and save it again."


def test_quantized_node_inside_a_function_is_refused(tmp_path: Path) -> None:
    model = models.local_function()
    model.functions[0].node[0].op_type = "MatMulInteger"

    error = refusal_of_model(model, tmp_path)
    assert error.detail == "model: is already quantized: node that makes 'p' is a MatMulInteger, expected a float model"


def test_custom_operator_inside_a_subgraph_is_refused(tmp_path: Path) -> None:
    model = models.if_subgraph()
    branch = next(node for node in model.graph.node if node.op_type == "If").attribute[0].g
    branch.node[0].domain = "com.example"

    error = refusal_of_model(model, tmp_path)
    where = "model: node that makes 'a' uses operator 'Add' of the custom domain 'com.example'"
    assert error.detail == f"{where}, which onnxruntime {onnxruntime.__version__} does not have"


def test_external_data_beside_the_model_are_loaded(tmp_path: Path) -> None:
    assert read_model(with_external_data(tmp_path)).graph.initializer[2].raw_data == cnn().graph.initializer[2].raw_data


def test_external_data_in_a_folder_below_are_loaded(tmp_path: Path) -> None:
    path = with_external_data(tmp_path, location="deep/weights.bin")
    (tmp_path / "deep").mkdir()
    (tmp_path / "weights.bin").rename(tmp_path / "deep" / "weights.bin")

    assert read_model(path).graph.initializer[2].raw_data == cnn().graph.initializer[2].raw_data


def test_missing_external_data_are_refused(tmp_path: Path) -> None:
    path = with_external_data(tmp_path)
    (tmp_path / "weights.bin").unlink()

    error = refusal(path)

    assert error.detail == "external data 'weights.bin' of tensor 'w2': file not found beside the model"
    assert error.fix == "Upload a .zip of the .onnx file together with its external data files, in one folder."


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "a/../../weights.bin", "..\\weights.bin", "C:\\weights.bin", ""])
def test_external_data_outside_the_folder_are_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(1000))
    (tmp_path / "inner").mkdir()

    error = refusal(with_external_data(tmp_path / "inner", location=location))

    assert error.detail == f"external data '{location}' of tensor 'w2': points outside the model's folder"
    assert error.fix == "Save the model again with onnx.save_model(..., save_as_external_data=True, location='weights.data')."


def test_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(1000))
    (tmp_path / "inner").mkdir()
    path = with_external_data(tmp_path / "inner", location="link.bin")
    os.symlink(tmp_path / "secret", tmp_path / "inner" / "link.bin")

    assert refusal(path).detail == "external data 'link.bin' of tensor 'w2': is a link that leaves the model's folder"


def test_external_data_that_end_too_early_are_refused(tmp_path: Path) -> None:
    path = with_external_data(tmp_path)
    os.truncate(tmp_path / "weights.bin", 100)

    assert refusal(path).detail == "external data 'weights.bin' of tensor 'w2': 100 bytes found, 580 expected"


@pytest.mark.parametrize("entries", [{"offset": "-4"}, {"length": "-1"}, {"length": "many"}])
def test_external_data_with_an_impossible_span_are_refused(entries: dict[str, str], tmp_path: Path) -> None:
    assert refusal(with_external_data(tmp_path, **entries)).detail.startswith("external data of tensor 'w2': ")


def test_model_whose_nodes_are_out_of_order_is_sorted(tmp_path: Path) -> None:
    model = cnn()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, tmp_path / "model.onnx")

    assert read_model(tmp_path / "model.onnx") == cnn()


def test_specs_give_names_types_and_axes() -> None:
    model = models.several_outputs()

    assert input_specs(model) == (TensorSpec("x", "float32", ("N", 6)),)
    assert output_specs(model) == (
        TensorSpec("hidden", "float32", ("N", 4)),
        TensorSpec("logits", "float32", ("N", 3)),
        TensorSpec("best", "int64", ("N",)),
    )


def test_spec_of_an_axis_nothing_is_known_of_is_none() -> None:
    model = cnn()
    model.graph.input[0].type.tensor_type.shape.dim[0].Clear()

    assert input_specs(model)[0].shape == (None, 1, 8, 8)


def test_initializers_listed_as_inputs_need_not_be_fed() -> None:
    assert [spec.name for spec in input_specs(models.overridable_initializers())] == ["x"]


def test_saved_model_is_read_as_it_was(tmp_path: Path) -> None:
    save_model(cnn(), tmp_path / "saved.onnx")

    assert read_model(tmp_path / "saved.onnx") == cnn()
    assert [path.name for path in tmp_path.iterdir()] == ["saved.onnx"]


def test_big_model_is_saved_with_its_weights_beside_it(tmp_path: Path) -> None:
    model = cnn()

    save_model(model, tmp_path / "saved.onnx", limit_bytes=100)

    assert model == cnn()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["saved.onnx", "saved.onnx.data"]
    again = read_model(tmp_path / "saved.onnx")
    feeds = one_batch(model)
    np.testing.assert_array_equal(run(again, feeds)[0], run(model, feeds)[0])


def test_failed_save_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "saved.onnx").mkdir()

    with pytest.raises(OSError, match="directory"):
        save_model(cnn(), tmp_path / "saved.onnx")

    assert [path.name for path in tmp_path.iterdir()] == ["saved.onnx"]
