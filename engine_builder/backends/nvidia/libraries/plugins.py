"""Plugins of TensorRT: its own, which some standard operators are made of (RoiAlign), and libraries that a server's operator names.

A library is native code that runs with the rights of the service, so only who starts the service may name one: in its environment, never in
a job. Not yet run on a GPU.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from engine_builder.backends.nvidia.hooks import DRIVER_FIX, process_logger
from engine_builder.errors import BuildError, UnsupportedTargetError

PLUGINS_VARIABLE = "ONNX_TRT_OPTIMIZER_TENSORRT_PLUGINS"


def plugin_libraries(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the libraries that ``PLUGINS_VARIABLE`` names, separated like the folders of PATH.

    Raises:
        UnsupportedTargetError: One is not an absolute path of a file.
    """
    found = tuple(Path(text) for text in environment.get(PLUGINS_VARIABLE, "").split(os.pathsep) if text.strip())
    for path in found:
        if not path.is_absolute() or not path.is_file():
            raise UnsupportedTargetError(
                f"{PLUGINS_VARIABLE}: found {str(path)!r}, expected the absolute path of a plugin library",
                fix="name libraries that exist, and start the service again",
            )
    return found


@functools.cache
def register_plugins(trt: ModuleType, libraries: tuple[Path, ...] = ()) -> None:
    """Make TensorRT's own plugins and those of the libraries known to this process's parser and runtime.

    Args:
        trt: ``tensorrt`` or ``tensorrt_rtx``.
        libraries: Of the operator.

    Raises:
        BuildError: TensorRT does not start.
        UnsupportedTargetError: A library does not load, or has plugins that are there already.
    """
    log = process_logger(trt)
    if not trt.init_libnvinfer_plugins(log, ""):
        raise BuildError(f"the plugins of TensorRT {trt.__version__} did not start: {log.messages.complaints()}", fix=DRIVER_FIX)
    registry = trt.get_plugin_registry()
    for path in libraries:
        if registry.load_library(str(path)) is None:
            raise UnsupportedTargetError(
                f"{PLUGINS_VARIABLE}: TensorRT {trt.__version__} does not load {path}: {log.messages.complaints() or 'no reason given'}",
                fix="build the library for this version of TensorRT, and name none twice",
            )
