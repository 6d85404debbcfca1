"""How much memory a large model takes from its file to its prepared form, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

SIDE, LAYERS = 1024, 16  # 64 MB in weights of 4 MB
BYTES = 4 * SIDE * SIDE * LAYERS

PREPARE = """
import resource, sys
from pathlib import Path
from calibration.graph_passes.normalize import prepare
from calibration.onnx_model.model_io import read_model, save_model
from calibration.process.memory import keep_little_free_memory
keep_little_free_memory()
prepare(read_model(Path(sys.argv[1])))  # a small one: what is loaded late is loaded
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = read_model(Path(sys.argv[2]))
save_model(prepare(model).model, Path(sys.argv[3]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def write(path: Path, side: int) -> None:
    rng = np.random.default_rng(0)
    names = ["x", *(f"h{index}" for index in range(LAYERS - 1)), "y"]
    weights = [numpy_helper.from_array(rng.random((side, side), np.float32), f"w{index}") for index in range(LAYERS)]
    nodes = [helper.make_node("MatMul", [names[index], f"w{index}"], [names[index + 1]]) for index in range(LAYERS)]
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ("n", side)) for name in "xy")
    graph = helper.make_graph(nodes, "products", [x], [y], weights)
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak is in another unit")
def test_the_users_model_and_the_prepared_one_are_all_that_is_there_at_once(tmp_path: Path) -> None:
    write(tmp_path / "small.onnx", 8)
    write(tmp_path / "large.onnx", SIDE)
    command = [sys.executable, "-c", PREPARE, *(str(tmp_path / name) for name in ("small.onnx", "large.onnx", "prepared.onnx"))]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    run = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    assert (tmp_path / "prepared.onnx").stat().st_size > BYTES
    assert int(run.stdout) * 1024 < 2.5 * BYTES  # file and parsed model while it is read, two models afterwards, and single weights
