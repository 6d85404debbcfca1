"""The entry point of the images as a module: its folder is no package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "docker" / "entrypoint.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docker_entrypoint", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
