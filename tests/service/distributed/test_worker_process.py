from __future__ import annotations

import pytest

from calibration.errors import InvalidConfigError
from calibration.execution.provider import Provider
from engine_builder.backends.gpu.visible_gpu import VisibleGpu
from service.distributed import worker_process


def test_the_type_of_the_gpu_is_found_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "gpu_here", lambda: VisibleGpu("NVIDIA GeForce RTX 4090", "uuid", (8, 9)))
    assert worker_process.own_gpu() == "RTX 4090"


def test_a_gpu_worker_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "gpu_here", lambda: None)
    with pytest.raises(InvalidConfigError, match="found no GPU that CUDA shows"):
        worker_process.own_gpu()


@pytest.mark.parametrize(
    ("parts", "found", "used"),
    [
        ("cuda", Provider.CUDA, Provider.CUDA),
        ("cuda", Provider.CPU, None),
        ("any", Provider.CUDA, Provider.CUDA),
        ("any", Provider.CPU, Provider.CPU),
    ],
)
def test_an_idle_gpu_worker_measures_parts_with_cuda_and_on_the_cpu_where_it_is_told_to(
    parts: str, found: Provider, used: Provider | None
) -> None:
    assert worker_process.own_probes(parts, lambda environment: found) == used


def test_a_gpu_worker_that_is_to_measure_no_parts_does_not_even_look_for_cuda() -> None:
    assert worker_process.own_probes("none", lambda environment: pytest.fail("it looked")) is None
