"""A model whose weights stay in its file is the model, but for the room that they take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.execution.onnxruntime_session import Piece
from calibration.execution.partition import Graph
from calibration.graph.layers import find_layers
from calibration.graph.weightless import size_bytes
from calibration.graph_passes.normalize import prepare
from calibration.onnx_model.model_io import save_model
from calibration.onnx_model.weights_in_file import array_of, filled, raw_bytes, read_prepared, serialized
from tests.model_text import ModelMaker, cnn, model_from_text, run, samples_for
from tests.models import AWKWARD
from tests.probed_models import assert_close

LEFT = 64  # bytes: nearly every weight of a small model
IN_ONE_FILE, BESIDE = 1 << 30, 0  # most bytes of weights in the .onnx file itself


def written(folder: Path, model: onnx.ModelProto, limit_bytes: int = IN_ONE_FILE) -> Path:
    save_model(model, folder / "prepared.onnx", limit_bytes=limit_bytes)
    return folder / "prepared.onnx"


@pytest.mark.parametrize("limit_bytes", [IN_ONE_FILE, BESIDE], ids=["one file", "external data"])
@pytest.mark.parametrize("maker", AWKWARD.values(), ids=AWKWARD.keys())
def test_it_has_the_nodes_and_the_values_of_the_model(maker: ModelMaker, limit_bytes: int, tmp_path: Path) -> None:
    model = prepare(maker()).model

    found = read_prepared(written(tmp_path, model, limit_bytes), left_bytes=LEFT)

    weights = [tensor.name for tensor in model.graph.initializer]
    assert sorted(tensor.name for tensor in found.graph.initializer) == sorted(weights)
    assert [node.SerializeToString() for node in found.graph.node] == [node.SerializeToString() for node in model.graph.node]
    by_name = {tensor.name: tensor for tensor in found.graph.initializer}
    for tensor in model.graph.initializer:
        np.testing.assert_array_equal(array_of(by_name[tensor.name]), numpy_helper.to_array(tensor))
        assert filled(by_name[tensor.name]) == tensor
        assert raw_bytes(by_name[tensor.name]) == raw_bytes(tensor)
        assert size_bytes(by_name[tensor.name]) == size_bytes(tensor)


@pytest.mark.parametrize("limit_bytes", [IN_ONE_FILE, BESIDE], ids=["one file", "external data"])
def test_its_message_holds_no_large_weight(limit_bytes: int, tmp_path: Path) -> None:
    model = prepare(model_from_text("g (float[N,64] x) => (float[N,64] y) { y = MatMul(x, w) }", {"w": (64, 64)})).model

    found = read_prepared(written(tmp_path, model, limit_bytes), left_bytes=4 * 64 * 64)

    assert found.ByteSize() < 64 * 64
    assert not any(tensor.raw_data for tensor in found.graph.initializer)


@pytest.mark.parametrize("limit_bytes", [IN_ONE_FILE, BESIDE], ids=["one file", "external data"])
def test_small_weights_and_whole_numbers_are_in_it(limit_bytes: int, tmp_path: Path) -> None:
    model = prepare(cnn()).model
    model.graph.initializer.append(numpy_helper.from_array(np.arange(64), "places"))  # 512 bytes

    found = read_prepared(written(tmp_path, model, limit_bytes), left_bytes=256)

    held = {tensor.name for tensor in found.graph.initializer if tensor.data_location != onnx.TensorProto.EXTERNAL}
    assert held == {one.name for one in model.graph.initializer if size_bytes(one) < 256 or one.name == "places"}
    assert len(held) < len(model.graph.initializer)


@pytest.mark.parametrize("limit_bytes", [IN_ONE_FILE, BESIDE], ids=["one file", "external data"])
def test_its_pieces_compute_what_the_model_computes_and_hold_no_weights(limit_bytes: int, tmp_path: Path) -> None:
    model = prepare(cnn()).model
    found = read_prepared(written(tmp_path, model, limit_bytes), left_bytes=LEFT)

    graph, feeds = Graph(found, find_layers(found)), samples_for(model, 4)
    piece = graph.piece(0, len(graph.nodes), outputs=graph.outputs)
    opened, folder = Piece(piece), serialized(piece)[1]

    assert folder == tmp_path
    assert all(not tensor.raw_data for tensor in piece.graph.initializer if size_bytes(tensor) >= LEFT)
    for name, expected in zip(graph.outputs, run(model, feeds), strict=True):
        assert_close(opened.run({**graph.matrices, **feeds})[name], expected)


def test_a_model_with_all_of_its_weights_is_serialized_as_it_is() -> None:
    model = prepare(cnn()).model

    assert serialized(model) == (model.SerializeToString(), None)
