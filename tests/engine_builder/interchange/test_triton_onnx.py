from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from calibration.onnx_model.model_io import save_model
from engine_builder.backends.engine_tensors import EngineTensor
from engine_builder.errors import BuildError
from engine_builder.interchange.triton_onnx import onnx_repository, onnx_tensors
from tests.engine_builder.pbtxt import parse
from tests.models import AWKWARD

HEADER = '<ir_version: 8, opset_import: ["": 17]>'


def model(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{HEADER} {text}")


def test_fixed_named_and_unknown_sizes_are_told_apart() -> None:
    inputs, outputs = onnx_tensors(model("g (float[N,3,?] x, int64[2] k) => (float[N,3,M] y) { y = Relu(x) }"))
    assert inputs == (EngineTensor("x", "float32", (None, 3, None)), EngineTensor("k", "int64", (2,)))
    assert outputs == (EngineTensor("y", "float32", (None, 3, None)),)


def test_a_weight_that_is_listed_as_an_input_is_none() -> None:
    listed = model("g (float[N,2] x, float[2] w) => (float[N,2] y) { y = Add(x, w) }")
    listed.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(2, np.float32), "w"))
    assert [tensor.name for tensor in onnx_tensors(listed)[0]] == ["x"]


def test_an_output_without_a_shape_gets_the_inferred_one() -> None:
    graph = model("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }")
    graph.graph.output[0].type.tensor_type.ClearField("shape")
    assert onnx_tensors(graph)[1] == (EngineTensor("y", "float32", (None, 3)),)


def test_a_sequence_is_refused_for_what_it_is() -> None:
    graph = model("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) s = SequenceConstruct(x, y) }")
    graph.graph.output.append(onnx.helper.make_tensor_sequence_value_info("s", onnx.TensorProto.FLOAT, None))
    with pytest.raises(BuildError, match="'s' is no tensor"):
        onnx_tensors(graph)


def test_an_output_of_unknown_rank_is_refused() -> None:
    graph = model("g (float[N,3] x, int64[K] shape) => (float[N] y) { y = Reshape(x, shape) }")
    graph.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(BuildError, match="the number of axes of 'y' is not known"):
        onnx_tensors(graph)


def test_external_data_are_in_the_repository_and_the_model_opens_from_it(tmp_path: Path) -> None:
    save_model(AWKWARD["cnn"](), tmp_path / "engine.onnx", limit_bytes=1)
    packed = onnx_repository(tmp_path / "engine.onnx", tmp_path / "triton.zip", max_batch_size=4)
    with zipfile.ZipFile(packed) as archive:
        assert archive.namelist() == ["model/config.pbtxt", "model/1/model.onnx", "model/1/engine.onnx.data"]
        archive.extractall(tmp_path / "repository")
    session = onnxruntime.InferenceSession(tmp_path / "repository" / "model" / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    config = parse((tmp_path / "repository" / "model" / "config.pbtxt").read_text())
    assert [item.name for item in config.input] == [value.name for value in session.get_inputs()]
    assert [item.name for item in config.output] == [value.name for value in session.get_outputs()]
    assert config.max_batch_size == 4
    shapes = [value.shape for value in session.get_inputs()]
    assert [list(item.dims) for item in config.input] == [[-1 if isinstance(size, str) else size for size in shape[1:]] for shape in shapes]


def test_external_data_that_would_be_taken_for_the_model_are_refused(tmp_path: Path) -> None:
    save_model(AWKWARD["cnn"](), tmp_path / "engine.onnx", limit_bytes=1)
    moved = onnx.load(tmp_path / "engine.onnx", load_external_data=False)
    for tensor in moved.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "model.onnx" if entry.key == "location" else entry.value
    (tmp_path / "engine.onnx.data").rename(tmp_path / "model.onnx")
    (tmp_path / "engine.onnx").write_bytes(moved.SerializeToString())
    with pytest.raises(BuildError, match="which Triton takes for the model"):
        onnx_repository(tmp_path / "engine.onnx", tmp_path / "triton.zip", max_batch_size=4)
