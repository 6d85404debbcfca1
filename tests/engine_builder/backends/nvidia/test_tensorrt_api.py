"""Every name of TensorRT that the sources use is listed, and is in the bindings of TensorRT 11.4, in TensorRT-RTX and in the stand-in."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from engine_builder.backends.nvidia import tensorrt_api
from engine_builder.backends.nvidia.tensorrt_api import OBJECTS, USED_API, check_version
from engine_builder.errors import UnsupportedTargetError
from tests.engine_builder.stub_driver import COMPILER, NO_COMPILER, compile_library
from tests.tensorrt_stand_in.install import install

SOURCES = sorted(
    path
    for path in Path(tensorrt_api.__file__).parent.rglob("*.py")
    if path.name != "tensorrt_api.py" and not path.name.startswith("tensorrt_rtx")
)
# What the bindings link to, so that they can be imported without the libraries.
LIBRARIES = ("libnvinfer.so.11", "libnvinfer_plugin.so.11", "libnvonnxparser.so.11")
ENTRY_POINTS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getBuilderPluginRegistry",
    "getPluginRegistry",
    "getNvOnnxParserVersion",
    "initLibNvInferPlugins",
)
LACKING = """
import importlib, json, sys
trt = importlib.import_module(sys.argv[1])
def has(name):
    found = trt
    for part in name.split("."):
        if not hasattr(found, part):  # what is only there to be overridden is told in words
            return f"def {part}(" in (found.__doc__ or "")
        found = getattr(found, part)
    return True
print(json.dumps([trt.__version__, [name for name in json.load(sys.stdin) if not has(name)]]))
"""

PUBLIC = """
import json, tensorrt
from tests.tensorrt_stand_in import surface
names = [name for name in surface.__all__ if not name.startswith("_")]
own = [name for name in names if name not in surface.OWN]
inner = [f"{name}.{part}" for name in own for part in dir(getattr(tensorrt, name)) if not part.startswith("_")]
print(json.dumps([*names, *inner]))
"""


def names_used(source: str) -> set[str]:
    """Return the names under ``trt``, those of its objects by their class, and the methods that subclasses of its classes override."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            path = dotted(node)
            if path is None:
                continue
            parts = path.split(".")
            if parts[0] == "trt" or parts[:2] == ["self", "_trt"]:
                found.add(".".join(parts[1 if parts[0] == "trt" else 2 :]))
            owner = parts[-2]
            if owner in OBJECTS and parts[:-1] in ([owner], ["self", owner]):
                found.add(f"{OBJECTS[owner]}.{parts[-1]}")
        elif isinstance(node, ast.ClassDef):
            bases = [dotted(base) for base in node.bases if isinstance(base, ast.Attribute)]
            methods = [item.name for item in node.body if isinstance(item, ast.FunctionDef) and not item.name.startswith("_")]
            found |= {f"{base.removeprefix('trt.')}.{name}" for base in bases if base and base.startswith("trt.") for name in methods}
    return {name for name in found if name and not name.startswith("__") and "__" not in name}


def dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        owner = dotted(node.value)
        return f"{owner}.{node.attr}" if owner else None
    return None


def lacking(module: str, names: Sequence[str] = USED_API, **environment: str) -> tuple[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", LACKING, module],
        input=json.dumps(names),
        env={**os.environ, **environment},
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    version, missing = json.loads(done.stdout)
    return version, missing


def test_list_of_names_is_what_the_sources_use() -> None:
    used = {name for path in SOURCES for name in names_used(path.read_text(encoding="utf-8"))}
    longest = {name for name in used if not any(other.startswith(f"{name}.") for other in used)}
    assert sorted(longest) == list(USED_API)


def test_names_are_found_by_module_object_and_subclass() -> None:
    source = """
class A(trt.IProfiler):
    def report(self): trt.Level.HIGH
    def _own(self): self._engine.run()
config.speed = parser.go(other.stop)
"""
    assert names_used(source) == {
        "IProfiler.report",
        "IProfiler",
        "Level",
        "Level.HIGH",
        "ICudaEngine.run",
        "IBuilderConfig.speed",
        "OnnxParser.go",
    }


needs_bindings = pytest.mark.skipif(importlib.util.find_spec("tensorrt_bindings") is None, reason="tensorrt-cu13-bindings is not installed")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)


def empty_libraries(folder: Path) -> str:
    """Return the folder after writing what the real bindings link to."""
    source = "\n".join(f"void *{name}(void) {{ return 0; }}" for name in ENTRY_POINTS)
    for library in LIBRARIES:
        compile_library(source, folder / library)
    return str(folder)


@needs_compiler
@needs_bindings
def test_bindings_of_tensorrt_11_have_every_name(tmp_path: Path) -> None:
    version, names = lacking("tensorrt_bindings", LD_LIBRARY_PATH=empty_libraries(tmp_path))
    assert version.startswith("11.")
    assert names == []


@needs_compiler
def test_the_stand_in_has_every_name(tmp_path: Path) -> None:
    assert lacking("tensorrt", **install(tmp_path))[1] == []


@needs_compiler
@needs_bindings
def test_the_stand_in_has_no_name_that_the_bindings_lack(tmp_path: Path) -> None:
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    names = names_of_stand_in(install(tmp_path))
    assert {"Builder", "IExecutionContext.execute_async_v3", "ITimingCache.serialize"} <= set(names)
    assert lacking("tensorrt_bindings", names, LD_LIBRARY_PATH=empty_libraries(libraries))[1] == []


def names_of_stand_in(environment: Mapping[str, str]) -> list[str]:
    """Return the module's public names and those of its classes."""
    done = subprocess.run([sys.executable, "-c", PUBLIC], env=environment, text=True, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx-cu13 is not installed")
def test_tensorrt_rtx_has_every_name_too() -> None:
    assert lacking("tensorrt_rtx")[1] == []


@pytest.mark.parametrize("version", ["10.12.0.36", "10.13.3", "11.4.0.106"])
def test_supported_versions_pass(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize("version", ["10.11.0", "8.6.1", "unknown"])
def test_older_versions_are_refused_with_the_oldest_that_will_do(version: str) -> None:
    with pytest.raises(UnsupportedTargetError, match=rf"found TensorRT {version}, expected 10\.12 or newer"):
        check_version(version)


def test_missing_tensorrt_names_the_package_to_install_and_the_other_target() -> None:
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("tensorrt is installed")
    with pytest.raises(UnsupportedTargetError, match="does not load here") as caught:
        tensorrt_api.load_tensorrt()
    assert "[gpu]" in caught.value.fix
    assert "tensorrt-rtx" in caught.value.fix
