"""Reads JSON into frozen dataclasses with messages a user can act on, and describes the same dataclasses as a JSON schema.

A field's limits and description are JSON-schema keywords in its ``metadata`` (``minimum``, ``exclusiveMinimum``, ``maximum``,
``exclusiveMaximum``, ``description``), so that what is checked and what is documented cannot differ.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import json
import math
import operator
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from calibration.codec import json_from_value
from calibration.errors import InvalidConfigError

T = TypeVar("T")
# The keywords of a limit, in words.
LIMIT_WORDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


def read(cls: type[T], data: object) -> T:
    """Return the dataclass ``cls`` that the JSON object ``data`` describes; absent keys take the field's default.

    Raises:
        InvalidConfigError: A key is unknown, or a value has the wrong type or is out of its limits. The message names the key by its path.
    """
    return typing.cast(T, _read_object(cls, data, path="", root=cls))


def describe(cls: type) -> dict[str, object]:
    """Return the JSON schema (draft 2020-12) of the dataclass ``cls``."""
    hints = typing.get_type_hints(cls)
    properties: dict[str, object] = {}
    required = []
    for field in dataclasses.fields(cls):
        entry = {**_describe_type(hints[field.name]), **field.metadata}
        if field.default is not dataclasses.MISSING:
            entry["default"] = json_from_value(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            entry["default"] = json_from_value(field.default_factory())
        else:
            required.append(field.name)
        properties[field.name] = entry
    schema: dict[str, object] = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": required} if required else schema


_SLIP = 0.85  # likeness (difflib's ratio) of a word with a letter or two wrong


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is most like ``word``, or None if none is.

    A slip of a letter or two comes first, then a word that shares a part (mean_iou for iou), then any that is like it.
    """
    choices = {choice.lower(): choice for choice in known}
    asked = word[:_SHOWN_CHARACTERS].lower()
    parts = set(_parts(asked))
    sharing = [choice for choice in choices if choice in parts or asked in _parts(choice)]
    for among, cutoff in ((list(choices), _SLIP), (sharing, 0.0), (list(choices), 0.6)):
        if found := difflib.get_close_matches(asked, among, n=1, cutoff=cutoff):
            return choices[found[0]]
    return None


def _parts(word: str) -> list[str]:
    return re.split(r"[^a-z0-9]+", word)


def _read_object(cls: type, data: object, *, path: str, root: type) -> object:
    where = path or "config"
    if not isinstance(data, Mapping):
        raise _wrong_type(where, data, "an object")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in data:
        if key not in fields:
            raise _unknown_key(str(key), where, fields, root)
    hints = typing.get_type_hints(cls)
    prefix = f"{path}." if path else ""
    for name, field in fields.items():
        if name not in data and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InvalidConfigError(f"{where}: `{name}` is missing", fix=f"Give all of {', '.join(fields)}.")
    values = {name: _read(hints[name], data[name], f"{prefix}{name}", root, fields[name].metadata) for name in fields if name in data}
    try:
        return cls(**values)
    except InvalidConfigError as error:  # what does not fit together: the value itself does not know where it stands
        raise InvalidConfigError(f"{where}: {error.detail}", fix=error.fix) from error


def _read(kind: object, data: object, path: str, root: type, limits: Mapping[str, object]) -> object:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType or origin is typing.Union:
        if data is None and type(None) in args:
            return None
        return _read(_member(args, data), data, path, root, limits)
    if origin is tuple:
        if not isinstance(data, list | tuple):
            raise _wrong_type(path, data, "a list")
        items = tuple(_read(args[0], item, f"{path}[{index}]", root, limits) for index, item in enumerate(data))
        if limits.get("uniqueItems") and len(set(items)) < len(items):
            raise InvalidConfigError(f"{path}: found {list(data)!r}, expected each value once", fix="Remove what is there twice.")
        if limits.get("minItems") and not items:
            raise InvalidConfigError(f"{path}: found an empty list, expected at least one value", fix="Leave the key out for the default.")
        return items
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(data, Mapping):
            raise _wrong_type(path, data, "an object")
        return {str(key): _read(args[1], item, f"{path}.{key}", root, limits) for key, item in data.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _read_object(kind, data, path=path, root=root)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _read_choice(kind, data, path)
    if kind is int or kind is float:
        return _read_number(kind, data, path, limits)
    if kind is bool:
        if not isinstance(data, bool):
            raise _wrong_type(path, data, "true or false")
        return data
    if kind is str:
        if not isinstance(data, str) or not data.strip():
            raise _wrong_type(path, data, "a text that is not empty")
        return data
    raise AssertionError(f"{path}: no reader for {kind}")


def _member(args: Iterable[object], data: object) -> object:
    """Return the type of a union that the value is of: a dataclass for an object, else the one that is none."""
    kinds = [arg for arg in args if arg is not type(None)]
    fitting = [kind for kind in kinds if dataclasses.is_dataclass(kind) == isinstance(data, Mapping)]
    return (fitting or kinds)[0]


def _read_choice(kind: type[enum.Enum], data: object, path: str) -> enum.Enum:
    choices = [str(item.value) for item in kind]
    if isinstance(data, str) and data in choices:
        return kind(data)
    like = nearest(data, choices) if isinstance(data, str) else None
    fix = f"Did you mean {like!r}?" if like else "Choose one of these values."
    raise InvalidConfigError(f"{path}: found {_shown(data)}, expected one of {', '.join(choices)}", fix=fix)


def _read_number(kind: type, data: object, path: str, limits: Mapping[str, object]) -> int | float:
    wanted = ("a whole number" if kind is int else "a number") + _limits_in_words(limits)
    if isinstance(data, bool) or not isinstance(data, int if kind is int else int | float):
        raise _wrong_type(path, data, wanted)
    if not _is_finite(data) or not _is_within(data, limits):
        fix = f"Set {path} to {wanted}."
        top = limits.get("maximum", limits.get("exclusiveMaximum"))
        if top == 1 and _LEAST_PERCENTAGE <= data <= 100:
            fix = f"Write it as a fraction: {data / 100:.10g} for {data:.10g}%."
        raise InvalidConfigError(f"{path}: found {_shown(data)}, expected {wanted}", fix=fix)
    return float(data) if kind is float else data


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number too large for a float
        return False


def _is_within(value: float, limits: Mapping[str, object]) -> bool:
    return all(_TESTS[name](value, limit) for name, limit in limits.items() if name in _TESTS and isinstance(limit, int | float))


def _limits_in_words(limits: Mapping[str, object]) -> str:
    words = " and ".join(f"{LIMIT_WORDS[name]} {limit}" for name, limit in limits.items() if name in LIMIT_WORDS)
    return f" {words}" if words else ""


def _unknown_key(key: str, where: str, fields: Mapping[str, object], root: type) -> InvalidConfigError:
    like = nearest(key, fields)
    if like is None:
        paths = {path.rsplit(".", 1)[-1]: path for path in reversed(_paths(root))}
        elsewhere = nearest(key, paths)
        like = paths[elsewhere] if elsewhere else None
    known = ", ".join(fields)
    fix = f"Did you mean `{like}`? Known here: {known}." if like else f"Remove it. Known here: {known}."
    return InvalidConfigError(f"{where}: found the unknown key {_shown(key)}", fix=fix)


def _paths(cls: type, prefix: str = "") -> list[str]:
    hints = typing.get_type_hints(cls)
    found: list[str] = []
    for field in dataclasses.fields(cls):
        found.append(prefix + field.name)
        kind = hints[field.name]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            found += _paths(kind, f"{prefix}{field.name}.")
    return found


def _wrong_type(path: str, data: object, wanted: str) -> InvalidConfigError:
    return InvalidConfigError(f"{path}: found {_shown(data)}, expected {wanted}", fix=f"Set {path} to {wanted}, or leave it out.")


def _shown(data: object) -> str:
    text = json.dumps(data) if data is None or isinstance(data, bool) else repr(data)  # as the user wrote it
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _describe_type(kind: object) -> dict[str, object]:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType or origin is typing.Union:
        return {"anyOf": [{"type": "null"} if arg is type(None) else _describe_type(arg) for arg in args]}
    if origin is tuple:
        return {"type": "array", "items": _describe_type(args[0])}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _describe_type(args[1])}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return describe(kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {"type": "string", "enum": [item.value for item in kind]}
    names: dict[object, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {"type": names[kind]}


_SHOWN_CHARACTERS = 60
_LEAST_PERCENTAGE = 50  # a number from here to 100, where a share is asked for, is likely a percentage
_TESTS: dict[str, Callable[[float, float], bool]] = {
    "minimum": operator.ge,
    "exclusiveMinimum": operator.gt,
    "maximum": operator.le,
    "exclusiveMaximum": operator.lt,
}
