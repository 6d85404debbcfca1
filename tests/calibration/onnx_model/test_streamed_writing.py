from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from calibration.onnx_model.streamed_writing import write_model


def written(model: onnx.ModelProto) -> bytes:
    stream = io.BytesIO()
    write_model(model, stream)
    return stream.getvalue()


def network(*weights: onnx.TensorProto) -> onnx.ModelProto:
    model: onnx.ModelProto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "other" : 1], producer_name: "me", model_version: 3, metadata_props: ["a" : "b"]>
        g (float[n, 4] x) => (float[n, 4] y) <float[n, 4] h> { h = Relu(x) y = Identity(h) }
    """)
    model.graph.initializer.extend(weights)
    model.graph.doc_string = "what it is"
    return model


@pytest.mark.parametrize(
    "weight",
    [
        numpy_helper.from_array(np.arange(3000, dtype=np.float32).reshape(3, 1000), "big"),
        numpy_helper.from_array(np.arange(3, dtype=np.int64), "small"),
        numpy_helper.from_array(np.zeros((0, 5000), dtype=np.float32), "empty"),
        helper.make_tensor("listed", onnx.TensorProto.FLOAT, (2000,), np.ones(2000, np.float32).tolist()),
        helper.make_tensor("four bits", onnx.TensorProto.INT4, (4001,), bytes(2001), raw=True),
        onnx.TensorProto(name="text", data_type=onnx.TensorProto.STRING, dims=(2,), string_data=(b"one", b"two")),
        onnx.TensorProto(name="beside", data_type=1, dims=(9000,), data_location=onnx.TensorProto.EXTERNAL),
    ],
    ids=lambda weight: weight.name,
)
def test_every_kind_of_weight_is_written_as_protobuf_writes_it(weight: onnx.TensorProto) -> None:
    model = network(weight)
    assert written(model) == model.SerializeToString(deterministic=True)


def test_what_stands_behind_the_data_of_a_large_weight_is_written_too() -> None:
    weight = numpy_helper.from_array(np.ones((40, 40), np.float32), "w")
    weight.doc_string = "behind"
    weight.metadata_props.add(key="a", value="b")
    model = network(weight)
    assert written(model) == model.SerializeToString(deterministic=True)


def test_functions_and_subgraphs_are_written() -> None:
    model = network(numpy_helper.from_array(np.ones(999, np.float32), "w"))
    model.functions.add(name="f", domain="other")
    body = onnx.GraphProto(name="body", initializer=[numpy_helper.from_array(np.ones(700, np.float32), "inner")])
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=body, else_branch=body))
    assert written(model) == model.SerializeToString(deterministic=True)


@given(sizes=st.lists(st.integers(0, 70000), max_size=4))
def test_sizes_on_both_sides_of_every_length_of_a_varint(sizes: list[int]) -> None:
    model = network(*(numpy_helper.from_array(np.zeros(size, np.int8), f"w{index}") for index, size in enumerate(sizes)))
    assert written(model) == model.SerializeToString(deterministic=True)


def test_a_model_without_weights_is_written() -> None:
    assert written(network()) == network().SerializeToString(deterministic=True)


WRITER = """
import resource
import sys
from pathlib import Path
import numpy as np, onnx
from onnx import numpy_helper
from calibration.onnx_model.model_io import save_model
from calibration.process.memory import keep_little_free_memory
keep_little_free_memory()
model = onnx.ModelProto(ir_version=8)
for index in range(16):
    model.graph.initializer.append(numpy_helper.from_array(np.ones(1 << 20, np.float32), f"w{index}"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
save_model(model, Path(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak is in another unit")
def test_a_model_is_written_without_room_for_another_one(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", WRITER, str(tmp_path / "model.onnx")]
    run = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    assert (tmp_path / "model.onnx").stat().st_size > 64 << 20
    assert int(run.stdout) < 20 << 10  # KB, of 64 MB: a weight of 4 MB at a time; in one piece it is 128 MB
