"""Opens the GPU with whichever CUDA package is installed: cuda.core, which has graphs, else pycuda."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping

from engine_builder.backends.gpu.cuda_core_driver import CudaCore
from engine_builder.backends.gpu.cuda_runtime import CudaRuntime
from engine_builder.backends.gpu.pycuda_driver import PyCuda
from engine_builder.errors import UnsupportedTargetError

ADAPTERS: Mapping[str, Callable[[], CudaRuntime]] = {"cuda.core": CudaCore, "pycuda": PyCuda}  # in order of preference


def open_cuda(adapters: Mapping[str, Callable[[], CudaRuntime]] = ADAPTERS) -> CudaRuntime:
    """Return the first visible GPU, opened by the first package that is installed.

    Raises:
        UnsupportedTargetError: No such package is installed.
        EngineError: The package found no driver or no GPU.
    """
    missing: list[str] = []
    for name, adapter in adapters.items():
        try:
            return adapter()
        except ImportError as exc:
            missing.append(f"{name} ({exc})")
    raise UnsupportedTargetError(
        f"no CUDA package found: {'; '.join(missing)}", fix="install one: pip install 'onnx-trt-optimizer[gpu]' (cuda.core) or '[pycuda]'"
    )


def has_cuda_package() -> bool:
    """Return whether one of the packages is installed, without importing it."""
    return any(_is_installed(name) for name in ADAPTERS)


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package that it is part of
        return False
