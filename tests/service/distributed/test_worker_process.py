from __future__ import annotations

import pytest

from calibration.errors import InvalidConfigError
from engine_builder.backends.gpu.visible_gpu import VisibleGpu
from service.distributed import worker_process


def test_the_type_of_the_gpu_is_found_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "gpu_here", lambda: VisibleGpu("NVIDIA GeForce RTX 4090", "uuid", (8, 9)))
    assert worker_process.own_gpu() == "RTX 4090"


def test_a_gpu_worker_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "gpu_here", lambda: None)
    with pytest.raises(InvalidConfigError, match="found no GPU that CUDA shows"):
        worker_process.own_gpu()
