"""TensorRT's plugins are registered once a process, and more libraries where the operator of the service names them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from engine_builder.backends.nvidia import tensorrt_api
from engine_builder.backends.nvidia.libraries.plugins import PLUGINS_VARIABLE, plugin_libraries, register_plugins
from engine_builder.backends.nvidia.tensorrt import TensorRtBackend
from engine_builder.errors import BuildError, UnsupportedTargetError
from service.worker.stage_process import stage_environment
from tests.engine_builder.fake_gpu import FakeGpu
from tests.engine_builder.fake_tensorrt import fake_tensorrt


class Registry:
    """Loads libraries whose name holds the word good."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def load_library(self, path: str) -> object | None:
        self.loaded.append(path)
        return object() if "good" in path else None


def module(registry: Registry, started: list[str], *, starts: bool = True) -> ModuleType:
    trt = fake_tensorrt(FakeGpu())

    def init_libnvinfer_plugins(log: object, namespace: str) -> bool:
        started.append(namespace)
        return starts

    trt.__dict__.update(init_libnvinfer_plugins=init_libnvinfer_plugins, get_plugin_registry=lambda: registry)
    return trt


def test_plugins_are_registered_once_a_process() -> None:
    registry, started = Registry(), list[str]()
    trt = module(registry, started)
    for _ in range(2):
        register_plugins(trt, (Path("/srv/good.so"),))
    assert started == [""]  # the namespace of TensorRT's own
    assert registry.loaded == ["/srv/good.so"]


def test_what_does_not_start_or_load_is_told() -> None:
    with pytest.raises(BuildError, match=r"the plugins of TensorRT 11\.4\.0 did not start"):
        register_plugins(module(Registry(), [], starts=False))
    with pytest.raises(UnsupportedTargetError, match=r"does not load /srv/bad\.so"):
        register_plugins(module(Registry(), []), (Path("/srv/bad.so"),))


def test_whoever_loads_tensorrt_gets_the_plugins_of_the_operator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    registry, started = Registry(), list[str]()
    library = tmp_path / "good.so"
    library.touch()
    monkeypatch.setenv(PLUGINS_VARIABLE, str(library))
    trt = module(registry, started)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    assert tensorrt_api.load_tensorrt() is trt
    assert (started, registry.loaded) == ([""], [str(library)])


def test_libraries_are_named_by_absolute_paths_of_files(tmp_path: Path) -> None:
    one, other = tmp_path / "one.so", tmp_path / "other.so"
    one.touch()
    other.touch()
    assert plugin_libraries({}) == plugin_libraries({PLUGINS_VARIABLE: " "}) == ()
    assert plugin_libraries({PLUGINS_VARIABLE: f"{one}{os.pathsep}{other}"}) == (one, other)
    for wrong in ("one.so", str(tmp_path / "missing.so"), str(tmp_path)):
        with pytest.raises(UnsupportedTargetError, match="expected the absolute path of a plugin library"):
            plugin_libraries({PLUGINS_VARIABLE: wrong})


def test_stages_know_the_libraries_and_the_target_says_that_there_are_some(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not TensorRtBackend().capabilities.has_plugins
    (tmp_path / "one.so").touch()
    monkeypatch.setenv(PLUGINS_VARIABLE, str(tmp_path / "one.so"))
    assert stage_environment()[PLUGINS_VARIABLE] == str(tmp_path / "one.so")
    assert TensorRtBackend().capabilities.has_plugins


def test_nvidias_own_registry_starts_and_refuses_what_is_no_library(tmp_path: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="needs the tensorrt-rtx builder (the extra rtx)")
    register_plugins(trt)
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(UnsupportedTargetError, match=r"does not load .*text\.so"):
        register_plugins(trt, (tmp_path / "text.so",))
