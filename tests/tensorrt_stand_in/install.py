"""Puts the stand-in and the stub driver where the processes of a test find them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.engine_builder.stub_driver import COMPILER, NO_COMPILER, build_driver
from tests.tensorrt_stand_in.orders import FOLDER_VARIABLE, Orders, give_orders

ROOT = Path(__file__).parents[2]
_MODULE = '''"""TensorRT, as far as the tests go."""

from tests.tensorrt_stand_in.surface import *
from tests.tensorrt_stand_in.surface import __version__ as __version__
'''


def install(folder: Path, orders: Orders | None = None) -> Mapping[str, str]:
    """Write everything into a folder and return the environment of a process that finds it; skips where a tool is missing.

    Args:
        folder: Empty; orders go there, and notes lie there.
        orders: The first ones.
    """
    if COMPILER is None:
        pytest.skip(NO_COMPILER)
    for package, name in (("tensorrt_rtx", "tensorrt-rtx-cu13"), ("cuda", "cuda.core")):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{name} is not installed")
    packages = folder / "packages"
    packages.mkdir()
    (packages / "tensorrt.py").write_text(_MODULE, encoding="utf-8")
    build_driver(folder)
    give_orders(folder, Orders() if orders is None else orders)
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("CUDA_", "STUB_", "ONNX_TRT_OPTIMIZER_"))}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join((str(packages), str(ROOT))),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, (str(folder), kept.get("LD_LIBRARY_PATH")))),
        "ONNX_TRT_OPTIMIZER_GPU_LOCKS": str(folder / "locks"),
        FOLDER_VARIABLE: str(folder),
    }
