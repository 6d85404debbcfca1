from __future__ import annotations

import numpy as np
import pytest

from benchmarks.kinds.cases import CASES
from benchmarks.kinds.network_builder import Network
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
