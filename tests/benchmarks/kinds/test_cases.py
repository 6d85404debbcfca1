from __future__ import annotations

import numpy as np
import pytest

from benchmarks.kinds.case import Case, Data, Outputs, Quality
from benchmarks.kinds.cases import CASES
from benchmarks.kinds.network_builder import Network, NetworkBuilder
from benchmarks.kinds.outside import measured_speedup, one_call, run_unseen


@pytest.mark.parametrize("name", ["embedding-linear", "sigmoid-one"])  # those that are built within a second
def test_network_is_deterministic_better_than_chance_and_its_own_reference(name: str) -> None:
    case = CASES[name]()
    network = Network(case.model.SerializeToString(), batch_axes=case.batch_axes)
    outputs = run_unseen(case, network)
    quality = case.measure(outputs, outputs)
    assert quality.kept == 1.0
    assert 0.8 < quality.truth < 1.0  # a tenth, and seven tenths, are chance
    again = CASES[name]()
    assert again.model.SerializeToString() == case.model.SerializeToString()
    assert all(np.array_equal(array, again.data.unseen[key]) for key, array in case.data.unseen.items())


def test_a_network_is_as_fast_as_itself() -> None:
    case = CASES["embedding-linear"]()
    networks = [Network(case.model.SerializeToString()) for _ in range(2)]
    assert measured_speedup(networks[0], networks[1], one_call(case)) == pytest.approx(1.0, abs=0.3)  # CPU time on a busy machine


def test_unseen_samples_are_run_at_the_batch_that_the_job_was_judged_at() -> None:
    builder = NetworkBuilder()
    builder.node(
        "Sub", "x", builder.node("ReduceMax", "x", axes=[0], keepdims=1), to="y"
    )  # as dynamic scales do, answers depend on neighbours
    model = builder.model({"x": ("n", 1)}, {"y": ("n", 1)})
    unseen = {"x": np.asarray([[1.0], [3.0], [2.0], [7.0], [5.0]], np.float32)}
    case = Case("neighbours", model, Data(unseen, None, unseen), _never, "none", batch=2)
    assert run_unseen(case, Network(model.SerializeToString()))["y"].ravel().tolist() == [-2.0, 0.0, -5.0, 0.0, 0.0]


def _never(outputs: Outputs, reference: Outputs) -> Quality:
    raise AssertionError
