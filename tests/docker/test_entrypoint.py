from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.docker.entrypoint_module import PATH, load

entrypoint = load()
GPU_IMAGE = {"onnx-trt-optimizer": "0.3.0", "tensorrt-cu13": "11.4.0.106"}
L4 = entrypoint.Cuda("13.0", ("NVIDIA L4 (compute capability 8.9, 22 GiB)",), None)

OPEN_MODULE = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder@U22-I3-AM15-24-1)
GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)
"""
CLOSED_MODULE = """NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024
GCC version:  gcc version 11.4.0
"""


PACKAGES = "onnx-trt-optimizer 0.3.0, tensorrt-cu13 11.4.0.106"


def line(driver: str | None, cuda: object) -> str:
    return str(entrypoint.line(entrypoint.Machine(driver, cuda, GPU_IMAGE)))


def test_a_found_gpu_is_named_with_driver_and_versions_in_one_line() -> None:
    found = line("580.95.05", L4)
    assert found == (
        "GPU NVIDIA L4 (compute capability 8.9, 22 GiB); driver 580.95.05, CUDA 13.0; onnx-trt-optimizer 0.3.0, tensorrt-cu13 11.4.0.106"
    )


def test_a_missing_driver_is_said() -> None:
    driver = "the host has no NVIDIA driver loaded; install driver r580 or newer there"
    assert line(None, None) == f"no GPU: {driver}, and {entrypoint.TOOLKIT}; {PACKAGES}"


@pytest.mark.parametrize(("version", "too_old"), [("535.183.01", True), ("579.99", True), ("580.65.06", False), ("595.10", False)])
def test_a_driver_before_r580_is_too_old(version: str, too_old: bool) -> None:
    assert ("too old for CUDA 13" in line(version, L4)) is too_old


def test_a_missing_container_toolkit_is_told_from_a_missing_driver() -> None:
    hidden = "the host's driver 580.95.05 is not visible in the container"
    assert line("580.95.05", None) == f"no GPU: {hidden}; {entrypoint.TOOLKIT}; {PACKAGES}"


def test_a_cuda_that_does_not_start_is_named() -> None:
    found = line("580.95.05", entrypoint.Cuda(None, (), "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"))
    cause = "driver 580.95.05, but CUDA does not start (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)"
    assert found == f"no usable GPU: {cause}; check `nvidia-smi` on the host, and {entrypoint.TOOLKIT}; {PACKAGES}"


def test_a_container_that_was_given_no_device_says_so() -> None:
    cause = "driver 580.95.05, but no device is given to the container"
    assert line("580.95.05", entrypoint.Cuda("13.0", (), None)) == f"no GPU: {cause}; {entrypoint.TOOLKIT}; {PACKAGES}"


def test_the_cpu_image_does_not_ask_for_a_driver() -> None:
    found = entrypoint.line(entrypoint.Machine(None, None, {"onnxruntime": "1.32.0"}))
    assert found.startswith("this image builds for the CPU only")
    assert found.endswith("; onnxruntime 1.32.0")


@pytest.mark.parametrize(
    ("text", "version"), [(OPEN_MODULE, "580.95.05"), (CLOSED_MODULE, "535.183.01"), ("something else 1.2", None), (None, None)]
)
def test_the_version_is_read_from_both_kinds_of_kernel_module(text: str | None, version: str | None) -> None:
    assert entrypoint.driver_version(text) == version


def test_it_says_its_line_and_becomes_the_server(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(PATH.parents[1]), "ONNX_TRT_OPTIMIZER_DATA_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, str(PATH), "--version"], capture_output=True, text=True, env=environment, check=True, timeout=60)
    assert done.stdout.count(".") == 2  # what `python -m service --version` prints
    assert len(done.stderr.splitlines()) == 1
    assert "onnxruntime" in done.stderr


STUB = """
#include <string.h>
#include <stddef.h>
int cuInit(unsigned flags) { return INIT; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int index) { *device = index + 7; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, device == 7 ? "NVIDIA L4" : "NVIDIA T4", size); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 8 : 9; return device == 7 ? 0 : 100; }
int cuDeviceTotalMem_v2(size_t *size, int device) { *size = (size_t)22 << 30; return 0; }
int cuGetErrorName(int status, const char **name) { *name = "CUDA_ERROR_NO_DEVICE"; return status == 100 ? 0 : 1; }
"""


@pytest.fixture
def driver_library(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: the driver library that answers here is compiled from STUB")
    source, library = tmp_path / "stub.c", tmp_path / "libcuda.so.1"
    source.write_text(STUB)
    command = [compiler, "-shared", "-fPIC", f"-DINIT={request.param}", "-o", str(library), str(source)]
    subprocess.run(command, check=True, timeout=60)
    return str(library)


@pytest.mark.parametrize("driver_library", [0], indirect=True)
def test_devices_are_read_from_the_driver_library(driver_library: str) -> None:
    found = entrypoint._cuda(driver_library)
    assert found == entrypoint.Cuda(
        "13.0",
        ("NVIDIA L4 (compute capability 8.9, 22 GiB)", "NVIDIA T4 (compute capability ?.?, 22 GiB)"),
        None,
    )


@pytest.mark.parametrize("driver_library", [100], indirect=True)
def test_an_error_of_the_driver_library_is_kept_by_name(driver_library: str) -> None:
    assert entrypoint._cuda(driver_library) == entrypoint.Cuda(None, (), "CUDA_ERROR_NO_DEVICE")


@pytest.mark.parametrize("driver_library", [999], indirect=True)
def test_an_error_without_a_name_is_kept_by_number(driver_library: str) -> None:
    assert entrypoint._cuda(driver_library) == entrypoint.Cuda(None, (), "CUDA error 999")


def test_no_driver_library_is_no_cuda() -> None:
    assert entrypoint._cuda("libthere-is-no-such-library.so.1") is None


class _Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        del format, arguments


@pytest.fixture
def port() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Health) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield str(server.server_port)
        server.shutdown()
        thread.join()


def test_health_is_asked_of_the_running_server(port: str) -> None:
    assert entrypoint.is_healthy(port)


def test_a_server_that_does_not_answer_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_TRT_OPTIMIZER_PORT", "1")  # nothing listens there
    assert entrypoint.main(["--check-health"]) == 1


def test_the_rtx_image_needs_no_gpu_and_says_what_that_means() -> None:
    found = entrypoint.line(entrypoint.Machine(None, None, {"tensorrt-rtx-cu13": "1.7.1.116"}))
    assert found == "no GPU: plans of TensorRT-RTX are built ahead of time, and their latency is predicted; tensorrt-rtx-cu13 1.7.1.116"
