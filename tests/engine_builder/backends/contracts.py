"""What every backend and every open engine keeps; a test class for each inherits it and gives what is tested."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from numpy.typing import NDArray

from engine_builder.backends.base import Backend, Runner
from engine_builder.config.config import ShapeRange
from engine_builder.errors import BuildError, EngineError
from engine_builder.timing import TimingPlan, time_interleaved

Feeds = Mapping[str, NDArray[np.generic]]

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
two (float[N,3] x, float[N,3] z) => (float[N,3] sum, float[N,3] product)
<float[3] scale = {1.0, 2.0, 3.0}>
{
    scaled = Mul(x, scale)
    sum = Add(scaled, z)
    product = Mul(x, z)
}
"""
UNKNOWN_OPERATOR = """
<ir_version: 8, opset_import: ["" : 17, "made.up" : 1]>
unknown (float[N] x) => (float[N] y) { y = made.up.Mystery(x) }
"""
FEEDS = {"z": np.ones((2, 3), dtype=np.float32), "x": np.arange(6, dtype=np.float32).reshape(2, 3)}


SHAPES = {name: ShapeRange((1, 3), (2, 3), (4, 3)) for name in FEEDS}


class RunnerContract(ABC):
    """What an open engine keeps."""

    @abstractmethod
    def opened(self, folder: Path) -> tuple[Runner, Feeds]:
        """Return an engine that was just opened and a batch for it, of which no output is empty."""

    def test_same_batch_gives_the_same_outputs(self, tmp_path: Path) -> None:
        runner, feeds = self.opened(tmp_path)
        for first, second in zip(runner.run(feeds), runner.run(feeds), strict=True):
            np.testing.assert_array_equal(first, second)

    def test_outputs_stay_as_they_are_when_the_runner_runs_again(self, tmp_path: Path) -> None:
        runner, feeds = self.opened(tmp_path)
        kept = runner.run(feeds)
        before = [output.copy() for output in kept]
        again = runner.run({name: np.asarray(array) * 2 for name, array in feeds.items()})
        assert any(not np.array_equal(one, other) for one, other in zip(again, before, strict=True))
        for output, expected in zip(kept, before, strict=True):
            np.testing.assert_array_equal(output, expected)

    def test_closed_runner_refuses_to_run(self, tmp_path: Path) -> None:
        runner, feeds = self.opened(tmp_path)
        runner.close()
        runner.close()
        with pytest.raises(EngineError):
            runner.run(feeds)

    def test_batch_that_lacks_an_input_is_an_engine_error(self, tmp_path: Path) -> None:
        runner, feeds = self.opened(tmp_path)
        for name in feeds:
            with pytest.raises(EngineError):
                runner.run({other: array for other, array in feeds.items() if other != name})


class BackendContract(RunnerContract):
    """What the pipeline relies on, for any target whose engines can be run here."""

    needs_explicit = False  # whether an engine runs only with its explicit model beside it, as a plan does without its GPU

    @abstractmethod
    def backend(self) -> Backend:
        """Return the backend under test."""

    def opened(self, folder: Path) -> tuple[Runner, Feeds]:
        engine = self.backend().build(self.explicit(folder), folder / "engine", shapes=SHAPES)
        return self.backend().open(engine.path, threads=1), FEEDS

    def explicit(self, folder: Path) -> Path:
        path = folder / "explicit.onnx"
        onnx.save_model(onnx.parser.parse_model(MODEL), path)
        return path

    def test_baseline_is_no_low_precision(self) -> None:
        capabilities = self.backend().capabilities
        assert capabilities.low_precisions
        assert capabilities.baseline not in capabilities.low_precisions

    def test_engine_runs_and_gives_outputs_in_model_order(self, tmp_path: Path) -> None:
        runner, feeds = self.opened(tmp_path)
        total, product = (np.asarray(array, np.float32) for array in runner.run(feeds))
        np.testing.assert_allclose(total, FEEDS["x"] * [1, 2, 3] + 1)
        np.testing.assert_allclose(product, FEEDS["x"])
        runner.close()

    def test_engine_needs_nothing_but_its_own_files(self, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.mkdir()
        target.mkdir()
        engine = self.backend().build(self.explicit(source), target / "engine", shapes=SHAPES)
        told = () if engine.layers is None else (engine.layers,)  # what its inspector said, which no run needs
        assert {path.name for path in target.iterdir()} == {path.name for path in (engine.path, *engine.data_files, *told)}
        if self.needs_explicit:
            (source / "explicit.onnx").rename(target / "explicit.onnx")
        else:
            (source / "explicit.onnx").unlink()
        assert len(self.backend().open(engine.path, threads=1).run(FEEDS)) == 2

    def test_size_is_that_of_what_runs(self, tmp_path: Path) -> None:
        engine = self.backend().build(self.explicit(tmp_path), tmp_path / "engine", shapes=SHAPES)
        assert engine.path.stat().st_size <= engine.size_bytes <= sum(path.stat().st_size for path in (engine.path, *engine.data_files))

    def test_nothing_is_refused_of_a_model_that_builds(self, tmp_path: Path) -> None:
        assert self.backend().refused(self.explicit(tmp_path)) == ()

    def test_runners_share_nothing(self, tmp_path: Path) -> None:
        engine = self.backend().build(self.explicit(tmp_path), tmp_path / "engine", shapes=SHAPES)
        first, second = (self.backend().open(engine.path, threads=1) for _ in range(2))
        first.close()
        assert len(second.run(FEEDS)) == 2

    def test_every_open_engine_gets_a_latency(self, tmp_path: Path) -> None:
        engine = self.backend().build(self.explicit(tmp_path), tmp_path / "engine", shapes=SHAPES)
        runners = {name: self.backend().open(engine.path, threads=1) for name in ("baseline", "engine")}
        found = self.backend().timings(runners, FEEDS, TimingPlan(0.02, 1, 10, time_interleaved))
        assert list(found) == ["baseline", "engine"]
        assert all(timing.median_ms > 0 for timing in found.values())

    def test_failed_build_carries_the_message_and_leaves_nothing(self, tmp_path: Path) -> None:
        explicit = tmp_path / "explicit.onnx"
        explicit.write_bytes(onnx.parser.parse_model(UNKNOWN_OPERATOR).SerializeToString())
        with pytest.raises(BuildError, match="Mystery"):
            self.backend().build(explicit, tmp_path / "engine", shapes={"x": ShapeRange((1,), (2,), (4,))})
        assert list(tmp_path.iterdir()) == [explicit]

    def test_garbage_is_a_build_error(self, tmp_path: Path) -> None:
        explicit = tmp_path / "explicit.onnx"
        explicit.write_bytes(b"\x08\x08garbage")
        with pytest.raises(BuildError):
            self.backend().build(explicit, tmp_path / "engine", shapes=SHAPES)
        assert list(tmp_path.iterdir()) == [explicit]

    def test_missing_engine_is_a_build_error(self, tmp_path: Path) -> None:
        with pytest.raises(BuildError):
            self.backend().open(tmp_path / "engine", threads=1)
