"""The lean runtime, which a version compatible plan carries with it: TensorRT's builder looks for its library while it builds.

It is no part of the package of TensorRT, but of one of its own; a builder that does not find it fails after all of its work.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
from pathlib import Path

from engine_builder.errors import UnsupportedTargetError

WHY_NOT = "the lean runtime that such a plan carries is not installed: pip install tensorrt-lean-cu13-libs, in TensorRT's own version"

_PACKAGE = "tensorrt_lean_libs"
_LIBRARY = "libnvinfer_lean.so"
_MAJORS = (10, 11, 12)  # of TensorRT


def has_lean_runtime() -> bool:
    """Whether the library is there for any version, without loading TensorRT."""
    return any(_found(major) is not None for major in _MAJORS)


def load_lean_runtime(version: str) -> None:
    """Load the library, so that the builder of this version finds it by its name.

    Args:
        version: Of TensorRT.

    Raises:
        UnsupportedTargetError: It is not installed for this version.
    """
    major = int(re.match(r"\d+", version)[0])  # type: ignore[index]  # ``check_version`` has read it
    library = _found(major)
    if library is None:
        raise UnsupportedTargetError(f"builder.version_compatible: {WHY_NOT}", fix=f"pip install tensorrt-lean-cu13-libs=={version}")
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)


def _found(major: int) -> str | None:
    """Return what the library of a version is loaded by: a name for the system's loader, or a path in its package."""
    name = f"{_LIBRARY}.{major}"
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        if (Path(folder) / name).is_file():
            return str(Path(folder) / name)
    try:
        ctypes.CDLL(name)
    except OSError:
        return None
    return name
