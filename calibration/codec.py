"""One JSON form for the flat frozen dataclasses that cross a stage."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def json_from_value(value: object) -> object:
    """Return plain JSON (dict, list, str, int, float, bool, None) of a value built of dataclasses, enums and containers."""
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: json_from_value(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(json_from_value(key)): json_from_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_from_value(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(str(json_from_value(item)) for item in value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"no JSON form for {type(value).__name__}")


def value_from_json(cls: type[T], data: object) -> T:
    """Return the value of type ``cls`` that ``json_from_value`` wrote.

    Raises:
        TypeError: The data do not have the form of ``cls``.
    """
    return typing.cast(T, _decode(cls, data))


def _decode(kind: object, data: object) -> object:
    origin = typing.get_origin(kind)
    args = typing.get_args(kind)
    if origin is typing.Union or origin is types.UnionType:
        if data is None and type(None) in args:
            return None
        return _decode(next(arg for arg in args if arg is not type(None)), data)
    if origin is tuple:
        if not isinstance(data, list | tuple):
            raise TypeError(f"expected a list, found {type(data).__name__}")
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_decode(args[0], item) for item in data)
        return tuple(_decode(arg, item) for arg, item in zip(args, data, strict=True))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(data, Mapping):
            raise TypeError(f"expected an object, found {type(data).__name__}")
        return {_decode(args[0], key): _decode(args[1], item) for key, item in data.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(data, Mapping):
            raise TypeError(f"expected an object for {kind.__name__}, found {type(data).__name__}")
        hints = typing.get_type_hints(kind)
        return kind(**{f.name: _decode(hints[f.name], data[f.name]) for f in dataclasses.fields(kind) if f.name in data})
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(data)
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if kind is object or (isinstance(kind, type) and isinstance(data, kind)):
        return data
    raise TypeError(f"expected {kind}, found {type(data).__name__}")
