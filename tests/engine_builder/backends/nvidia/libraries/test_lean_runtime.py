"""A version compatible plan is refused where the lean runtime is missing, before anything is built."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from calibration.errors import InvalidConfigError
from engine_builder.backends.build_options import BuildOptions
from engine_builder.backends.nvidia import tensorrt
from engine_builder.backends.nvidia.libraries.lean_runtime import has_lean_runtime, load_lean_runtime
from engine_builder.backends.nvidia.tensorrt import TensorRtBackend
from engine_builder.config.builder_options import BuilderConfig, check_builder
from engine_builder.errors import UnsupportedTargetError
from tests.engine_builder.fake_gpu import FakeGpu
from tests.engine_builder.fake_tensorrt import fake_tensorrt
from tests.engine_builder.stub_driver import COMPILER, NO_COMPILER, compile_library

COMPATIBLE = BuilderConfig(version_compatible=True)


@pytest.fixture(autouse=True)
def own_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Put a folder for packages in front of all others; return the package of the library in it, still empty."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt_lean_libs", raising=False)
    package = tmp_path / "tensorrt_lean_libs"
    package.mkdir()
    (package / "__init__.py").touch()
    return package


def with_library(package: Path, major: int) -> None:
    if COMPILER is None:
        pytest.skip(NO_COMPILER)
    compile_library("int lean;", package / f"libnvinfer_lean.so.{major}")


def test_without_it_the_key_is_refused_at_intake() -> None:
    assert not has_lean_runtime()
    support = TensorRtBackend().capabilities.builder
    with pytest.raises(InvalidConfigError, match=r"expected none for tensorrt: the lean runtime .* is not installed") as caught:
        check_builder(COMPATIBLE, "tensorrt", support, (8, 9))
    assert caught.value.fix == "Leave builder.version_compatible out."
    check_builder(BuilderConfig(hardware_compatible=True), "tensorrt", support, (8, 9))


def test_with_it_the_key_is_honoured(own_packages: Path) -> None:
    with_library(own_packages, 11)
    assert has_lean_runtime()
    check_builder(COMPATIBLE, "tensorrt", TensorRtBackend().capabilities.builder, (8, 9))
    # In a process of its own: once loaded, the system finds it by its name.
    script = (
        "import ctypes; from engine_builder.backends.nvidia.libraries import lean_runtime as lean; lean.load_lean_runtime('11.4.0.106')"
    )
    found = f"{script}; print(ctypes.CDLL('libnvinfer_lean.so.11'))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (own_packages.parent, *sys.path)))}
    done = subprocess.run([sys.executable, "-c", found], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_library_of_another_version_is_of_no_use(own_packages: Path) -> None:
    with_library(own_packages, 10)
    with pytest.raises(UnsupportedTargetError, match="is not installed") as caught:
        load_lean_runtime("11.4.0.106")
    assert caught.value.fix == "pip install tensorrt-lean-cu13-libs==11.4.0.106"


def test_nothing_is_built_without_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def build_plan(*arguments: object, **more: object) -> None:
        pytest.fail("built")

    monkeypatch.setattr(tensorrt, "build_plan", build_plan)
    gpu = FakeGpu()
    target = TensorRtBackend(options=BuildOptions(version_compatible=True), load=lambda: fake_tensorrt(gpu), open_gpu=lambda: gpu)
    with pytest.raises(UnsupportedTargetError, match=r"builder\.version_compatible"):
        target.build(tmp_path / "explicit.onnx", tmp_path / "engine.plan")
