from __future__ import annotations

import pytest

from calibration.execution.provider import Provider
from engine_builder.backends.gpu.lock import gpu_lock
from engine_builder.backends.gpu.visible_gpu import VisibleGpu
from engine_builder.errors import GpuInUseError
from engine_builder.probing.lent_gpu import lent_gpu

GPU = VisibleGpu("NVIDIA L4", "6f0c", (8, 9))


def test_probes_on_cuda_keep_others_off_the_gpu_and_give_it_back() -> None:
    with (
        lent_gpu(Provider.CUDA, find=lambda: GPU),
        pytest.raises(GpuInUseError),
        gpu_lock(GPU.uuid, wait_s=0.0),
    ):
        pytest.fail("both held the GPU")
    with gpu_lock(GPU.uuid, wait_s=0.0):
        pass


def test_probes_on_cuda_do_not_begin_while_somebody_builds_or_times_there() -> None:
    with (
        gpu_lock(GPU.uuid, wait_s=0.0),
        pytest.raises(GpuInUseError, match="is in use by process"),
        lent_gpu(Provider.CUDA, find=lambda: GPU, wait_s=0.0),
    ):
        pytest.fail("both held the GPU")


@pytest.mark.parametrize("provider", [None, Provider.CPU])
def test_other_probes_ask_for_no_gpu(provider: Provider | None) -> None:
    def find() -> VisibleGpu:
        pytest.fail("nobody needs it")

    with lent_gpu(provider, find=find):
        pass


def test_where_no_driver_answers_there_is_nothing_to_hold() -> None:
    with lent_gpu(Provider.CUDA, find=lambda: None):
        pass
