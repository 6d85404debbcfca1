from __future__ import annotations

import numpy as np

from benchmarks.kinds.network_builder import Network, NetworkBuilder


def dense_then_relu() -> NetworkBuilder:
    builder = NetworkBuilder()
    made = builder.dense("x", np.asarray([[1, -1]], dtype=np.float32), np.zeros(2, np.float32), to="middle")
    builder.node("Relu", made, to="y")
    return builder


def test_network_runs_all_samples_in_calls_of_a_batch() -> None:
    model = dense_then_relu().model({"x": ["N", 1]}, {"y": ["N", 2]})
    samples = np.asarray([[1], [-2], [3]], dtype=np.float32)
    assert Network(model.SerializeToString()).run({"x": samples}, batch=2)["y"].tolist() == [[1, 0], [0, 2], [3, 0]]


def test_samples_come_first_whatever_axis_counts_them() -> None:
    builder = dense_then_relu()
    builder.node("Transpose", "y", to="turned", perm=[1, 0])
    network = Network(builder.model({"x": ["N", 1]}, {"turned": [2, "N"]}).SerializeToString(), batch_axes={"turned": 1})
    assert network.run({"x": np.asarray([[1], [-2], [3]], dtype=np.float32)}, batch=2)["turned"].tolist() == [[1, 0], [0, 2], [3, 0]]


def test_a_network_may_begin_with_the_first_nodes_of_another() -> None:
    whole = dense_then_relu().model({"x": ["N", 1]}, {"y": ["N", 2]})
    builder = NetworkBuilder()
    builder.node("Neg", builder.begin_with(whole, "middle", "picture"), to="z")
    model = builder.model({"picture": ["N", 1]}, {"z": ["N", 2]})
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Neg"]
    assert Network(model.SerializeToString()).run({"picture": np.asarray([[2]], dtype=np.float32)})["z"].tolist() == [[-2, 2]]
