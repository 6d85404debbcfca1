"""Modules that take long to import and that most processes never use: each is imported when something in it is first asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection
from types import ModuleType
from typing import Any


def deferred(name: str) -> ModuleType:
    """Return a stand-in for a module, which imports it when it is asked for the first of its names.

    Args:
        name: The module's full name.
    """
    return _Deferred(name)


def defer(name: str, functions: Collection[str] = ()) -> None:
    """Let ``import name`` anywhere in this process give the stand-in, unless the module is there already.

    For modules that a library imports and hardly uses: onnx_ir imports sympy, which costs half a second and 30 MB, for symbolic sizes.

    Args:
        name: A top-level module's name.
        functions: Names in it that are only ever called: asked for, they give stand-ins too, and the call imports the module.
    """
    sys.modules.setdefault(name, _Deferred(name, functions))


class _Deferred(ModuleType):
    """Stands for a module of its own name until that is imported. Any thread may be the first to ask."""

    def __init__(self, name: str, functions: Collection[str] = ()) -> None:
        super().__init__(name)
        self.__dict__["_functions"] = frozenset(functions)

    def __getattr__(self, name: str) -> object:
        if name in self.__dict__["_functions"]:
            return lambda *arguments, **named: self._real(name)(*arguments, **named)
        return self._real(name)

    def _real(self, name: str) -> Any:
        own = self.__name__
        if sys.modules.get(own) is self:
            del sys.modules[own]
        return getattr(importlib.import_module(own), name)
