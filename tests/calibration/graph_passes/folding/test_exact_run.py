from __future__ import annotations

import pytest

from tests.calibration.graph_passes.folding.affine_networks import affine_network
from tests.calibration.graph_passes.folding.exact_run import difference, run_in_float64
from tests.model_text import run


@pytest.mark.parametrize("seed", range(20))
def test_float64_runs_compute_what_onnxruntime_does(seed: int) -> None:
    model, feeds = affine_network(seed)
    assert difference(run(model, feeds), run_in_float64(model, feeds)) < 1e-5  # float32 rounding
