from __future__ import annotations

import logging
import os
from pathlib import Path

import onnxruntime as ort
import pytest

from calibration.execution.provider import Provider
from calibration.execution.provider_here import provider_here
from tests.cuda_machine import ROOT, STAND_IN, search_path


@pytest.mark.skipif(Provider.CUDA.value in ort.get_available_providers(), reason="this onnxruntime has CUDA")
def test_where_onnxruntime_has_no_cuda_probes_run_on_the_cpu() -> None:
    assert provider_here({**os.environ, "PYTHONPATH": str(ROOT)}) is Provider.CPU


def test_where_a_session_opens_with_cuda_probes_run_there(tmp_path: Path) -> None:
    printing = f"print('of a library')\n{STAND_IN}"
    assert provider_here({**os.environ, "PYTHONPATH": search_path(tmp_path, printing)}) is Provider.CUDA


@pytest.mark.parametrize("stand_in", ["raise ImportError('libcudnn.so.9: no such file')", "import os; os.abort()"])
def test_a_process_that_fails_leaves_the_cpu_and_says_so(tmp_path: Path, stand_in: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert provider_here({**os.environ, "PYTHONPATH": search_path(tmp_path, stand_in)}) is Provider.CPU
    assert "CUDA does not work for probes" in caplog.text


def test_a_driver_that_hangs_is_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    environment = {**os.environ, "PYTHONPATH": search_path(tmp_path, "import time; time.sleep(60)")}
    with caplog.at_level(logging.WARNING):
        assert provider_here(environment, seconds=1.0) is Provider.CPU
    assert "CUDA is not tried for probes" in caplog.text
