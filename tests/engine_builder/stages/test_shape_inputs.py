"""A model with an input that sets sizes is built by NVIDIA's own builder, for the values that its samples have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine_builder.pipeline.stage_table import BASELINE
from engine_builder.stage_io.engines import BaselineRequest
from tests.driver import inspection_of, ranged
from tests.model_text import model_from_text

pytest.importorskip("tensorrt_rtx", reason="needs the tensorrt-rtx builder (the extra rtx)")


def test_an_input_that_says_how_many_rows_count_is_in_the_baseline_engine(tmp_path: Path) -> None:
    model = model_from_text(
        """g (float[1,3,8,8] x, int64[1] n) => (float[1,3] y)
        <int64[1] start = {0}, int64[1] axis = {2}> {
            c = Conv<pads=[1,1,1,1]>(x, w1)
            s = Slice(c, start, n, axis)
            p = GlobalAveragePool(s)
            f = Flatten(p)
            y = MatMul(f, w2)
        }""",
        {"w1": (8, 3, 3, 3), "w2": (8, 3)},
    )
    rng = np.random.default_rng(0)
    rows = np.arange(24).reshape(-1, 1) % 6 + 2
    samples: dict[str, NDArray[Any]] = {"x": rng.normal(size=(24, 3, 8, 8)).astype(np.float32), "n": rows}
    driver, job = ranged(tmp_path, model, samples, config={"target": "tensorrt-rtx", "gpu": "RTX 4090"})
    (found,) = inspection_of(driver, job).calls.engine_values.values()
    assert (found.min, found.max) == ((2,), (7,))
    built = driver.run(BASELINE, BaselineRequest(job))
    assert driver.workspace.path(built.baseline).stat().st_size > 1000
