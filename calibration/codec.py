"""One JSON form for the flat frozen dataclasses that cross a stage."""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import types
import typing
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def json_from_value(value: object) -> object:
    """Return plain JSON (dict, list, str, int, float, bool, None) of a value built of dataclasses, enums and containers.

    A float that is no finite number becomes a text, since JSON has none.
    """
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
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # "inf", "-inf" or "nan", for which JSON has no numbers
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"no JSON form for {type(value).__name__}")


def value_from_json(cls: type[T], data: object) -> T:
    """Return the value of type ``cls`` that ``json_from_value`` wrote.

    Args:
        cls: A dataclass, an enum, a plain type, or a tuple, mapping or union of such; the members of a union must differ in JSON (text,
            number, list, object), which does not say what was meant.
        data: Parsed JSON.

    Raises:
        TypeError: The data do not have the form of ``cls``; the message names the place: "TrialRequest.job.ranges: ...".
    """
    return typing.cast(T, _decode(cls, data, _name_of(cls)))


def object_once(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """Return an object of JSON that has each key once, for ``json.loads(text, object_pairs_hook=object_once)``.

    Raises:
        ValueError: A key stands twice in it: JSON's reader would take the last in silence.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def as_object(data: object) -> dict[str, object]:
    """Return a JSON object as such.

    Raises:
        TypeError: The data are of another form.
    """
    return value_from_json(dict[str, object], data)


def _decode(kind: object, data: object, at: str) -> object:
    if kind is type(data) and kind in _PLAIN:  # most values, with nothing in them to decode
        return data
    origin = typing.get_origin(kind)
    args = typing.get_args(kind)
    if origin is typing.Union or origin is types.UnionType:
        return _decode_union(args, data, at)
    if origin is tuple:
        items = _expected(list | tuple, "a list", data, at)
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_decode(args[0], item, f"{at}[{index}]") for index, item in enumerate(items))
        if len(items) != len(args):
            raise TypeError(f"{at}: expected a list of {len(args)}, found {len(items)} items")
        return tuple(_decode(arg, item, f"{at}[{index}]") for index, (arg, item) in enumerate(zip(args, items, strict=True)))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        table = _expected(Mapping, "an object", data, at)
        return {_decode(args[0], key, at): _decode(args[1], item, f"{at}[{key!r}]") for key, item in table.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, data, at)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(data)
        except ValueError as error:
            raise TypeError(f"{at}: expected a {kind.__name__}, found {data!r}") from error
    if kind is float and ((isinstance(data, int) and not isinstance(data, bool)) or data in _NOT_FINITE):
        return float(data)
    is_number = kind in (int, float) and isinstance(data, bool)  # a bool is an int to Python, not to JSON
    if kind is object or (isinstance(kind, type) and isinstance(data, kind) and not is_number):
        return data
    raise TypeError(f"{at}: expected {_name_of(kind)}, found {type(data).__name__}")


def _decode_union(members: tuple[object, ...], data: object, at: str) -> object:
    if data is None and type(None) in members:
        return None
    present = [member for member in members if member is not type(None)]
    fitting = [member for member in present if len(present) == 1 or isinstance(data, _json_forms(member))]
    if len(fitting) != 1:
        names = " and ".join(map(_name_of, fitting or present))
        why = f"{names} look the same in JSON" if fitting else f"expected one of {names}"
        raise TypeError(f"{at}: {why}, found {type(data).__name__}")
    return _decode(fitting[0], data, at)


def _json_forms(kind: object) -> tuple[type, ...]:
    """Return what values of a type are in JSON, as Python reads it."""
    origin = typing.get_origin(kind) or kind
    if origin is tuple:
        return (list, tuple)
    if not isinstance(origin, type):
        return (object,)
    if dataclasses.is_dataclass(origin) or issubclass(origin, Mapping):
        return (Mapping,)
    if issubclass(origin, enum.Enum):
        return tuple({type(member.value) for member in origin})
    return (int, float) if origin is float else (origin,)


def _decode_dataclass(kind: type, data: object, at: str) -> object:
    given = _expected(Mapping, f"an object for {kind.__name__}", data, at)
    kinds = _fields_of(kind)
    if unknown := [str(key) for key in given if key not in kinds]:
        raise TypeError(f"{at}: found {', '.join(unknown)}, which {kind.__name__} does not have")
    if missing := [name for name, is_needed in _needed_by(kind).items() if is_needed and name not in given]:
        raise TypeError(f"{at}: found no {', '.join(missing)}, which {kind.__name__} needs")
    return kind(**{name: _decode(kinds[name], item, f"{at}.{name}") for name, item in given.items()})


@functools.cache
def _fields_of(kind: type) -> Mapping[str, object]:
    """Return the type of each field that the constructor takes."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


@functools.cache
def _needed_by(kind: type) -> Mapping[str, bool]:
    """Return of each field that the constructor takes whether it has no default."""
    none = dataclasses.MISSING
    return {field.name: field.default is none and field.default_factory is none for field in dataclasses.fields(kind) if field.init}


def _expected(kind: typing.Any, name: str, data: object, at: str) -> typing.Any:  # the type of what comes back is that of the check
    if not isinstance(data, kind):
        raise TypeError(f"{at}: expected {name}, found {type(data).__name__}")
    return data


def _name_of(kind: object) -> str:
    return kind.__name__ if isinstance(kind, type) and typing.get_origin(kind) is None else str(kind)


_PLAIN = (str, int, float, bool)
_NOT_FINITE = ("inf", "-inf", "nan")
