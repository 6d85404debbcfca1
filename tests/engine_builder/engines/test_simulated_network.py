"""What a whole quantized network does to the outputs, of both dialects."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from calibration.data.dataset import load_saved
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.sensitivity.noise_level import FLOOR
from engine_builder.backends.registry import backend_for
from engine_builder.corrections.method import WholeNetwork
from engine_builder.engines.simulated_network import AT_ONCE, SimulatedNetwork
from engine_builder.records.calibrated import layer_precisions_of, read_ranges
from tests.driver import Json, inspection_of, ranged
from tests.engine_builder.corrections.spiked_samples import network, samples

Ranges = dict[str, tuple[float, float]]


class WholeNetworkContract(ABC):
    """Tests of every ``WholeNetwork``."""

    @pytest.fixture
    @abstractmethod
    def given(self, tmp_path: Path) -> tuple[WholeNetwork, Sequence[LayerPrecision], Ranges]:
        """Return a network of at least 16 samples, its layers in INT8, and ranges without room to spare."""

    def test_each_sample_has_a_level_and_a_loss(self, given: tuple[WholeNetwork, Sequence[LayerPrecision], Ranges]) -> None:
        whole, layers, ranges = given
        found = whole.noise(layers, ranges, np.arange(AT_ONCE + 1))
        assert found.levels.shape == found.losses.shape == (AT_ONCE + 1,)
        assert (found.losses > 0.0).all()
        assert np.array_equal(whole.noise(layers, ranges, np.arange(AT_ONCE + 1)).levels, found.levels)

    def test_samples_are_those_that_are_named(self, given: tuple[WholeNetwork, Sequence[LayerPrecision], Ranges]) -> None:
        whole, layers, ranges = given
        every = whole.noise(layers, ranges, np.arange(16))
        some = whole.noise(layers, ranges, np.array([3, 9, 12]))
        assert some.losses == pytest.approx(every.losses[[3, 9, 12]], rel=1e-3)

    def test_coarser_steps_are_noisier(self, given: tuple[WholeNetwork, Sequence[LayerPrecision], Ranges]) -> None:
        whole, layers, ranges = given
        coarse = {name: (8.0 * low, 8.0 * high) for name, (low, high) in ranges.items()}
        fine, noisy = (whole.noise(layers, some, np.arange(16)) for some in (ranges, coarse))
        assert noisy.levels.mean() > fine.levels.mean() + 2.0
        assert noisy.losses.mean() > fine.losses.mean()

    def test_a_network_in_float_has_no_noise(self, given: tuple[WholeNetwork, Sequence[LayerPrecision], Ranges]) -> None:
        whole, _, ranges = given
        assert whole.noise((), ranges, np.arange(4)).levels == pytest.approx(np.log(FLOOR), abs=0.01)


class SimulatedNetworkContract(WholeNetworkContract):
    config: ClassVar[Json]

    @pytest.fixture
    def given(self, tmp_path: Path) -> tuple[WholeNetwork, Sequence[LayerPrecision], Ranges]:
        config: Json = {"outputs": {"y": "logits"}, "precisions": ["int8"], **self.config}
        driver, job = ranged(tmp_path, network(), samples(32, 1.0), samples(16, 1.0, seed=1), config)
        prepared = inspection_of(driver, job).model
        whole = SimulatedNetwork(
            driver.workspace.path(prepared.file),
            prepared,
            load_saved(driver.workspace.path(job.calibrated.calibration)),
            backend_for(job.config.target, job.config.gpu).capabilities.dialect,
            tmp_path,
        )
        layers = [item for item in layer_precisions_of(prepared.layers, job.calibrated.eligible) if item.precision is Precision.INT8]
        assert len(layers) == 2
        return whole, layers, dict(read_ranges(job.calibrated, driver.workspace).ranges)


class TestOnnxRuntime(SimulatedNetworkContract):
    config: ClassVar[Json] = {}


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx-cu13 is not installed")
class TestTensorRt(SimulatedNetworkContract):
    config: ClassVar[Json] = {"target": "tensorrt-rtx", "gpu": "L4"}
