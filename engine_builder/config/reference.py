"""Writes the tables of ``docs/configuration.md`` from the schema that jobs are checked by.

``python -m engine_builder.config.reference FILE`` rewrites a page in place. Only what stands between the two marks in the file is
replaced; the words around it are written by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from calibration.codec import as_object, value_from_json
from engine_builder.config.config import json_schema
from engine_builder.config.schema import LIMIT_WORDS

BEGIN = "<!-- begin: written by `make docs`, not by hand -->"
END = "<!-- end: written by `make docs` -->"
Entry = Mapping[str, object]


def reference(schema: Entry) -> str:
    """Return a JSON schema of ``describe`` as Markdown: one table for the keys of the top and one for those of each object in it.

    Args:
        schema: Of an object. Its keys may hold plain values, lists, choices, objects, and objects of any names.
    """
    parts = [_table("", schema)]
    for path, entry in _objects(schema, ""):
        parts.append(f"### `{path}`\n\n{_table(f'{path}.', entry)}")
    return "\n".join(parts)


def with_reference(page: str, schema: Entry) -> str:
    """Return the page with the text between its marks replaced by the reference.

    Raises:
        ValueError: The page lacks a mark.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {END if begin else BEGIN!r}")
    return f"{head}{begin}\n\n{reference(schema)}\n{end}{tail}"


def main(arguments: Sequence[str]) -> int:
    """Rewrite the page whose path is the one argument."""
    path = Path(*arguments)
    path.write_text(with_reference(path.read_text(encoding="utf-8"), json_schema()), encoding="utf-8")
    return 0


def _objects(schema: Entry, prefix: str) -> Iterator[tuple[str, Entry]]:
    """Yield each object with keys of its own below this one, and its path; that of an object of any names ends in ``NAME``."""
    for name, entry in _properties(schema).items():
        path = f"{prefix}{name}"
        for below, place in _with_keys(entry, path):
            yield place, below
            yield from _objects(below, f"{place}.")


def _with_keys(entry: Entry, path: str) -> Iterator[tuple[Entry, str]]:
    if "properties" in entry:
        yield entry, path
    for option in _entries(entry.get("anyOf", ())):
        yield from _with_keys(option, path)
    if isinstance(items := entry.get("items"), Mapping):
        yield from _with_keys(as_object(items), path)
    values = entry.get("additionalProperties")
    if isinstance(values, Mapping):
        yield from _with_keys(values, f"{path}.NAME")


def _table(prefix: str, schema: Entry) -> str:
    required = value_from_json(tuple[str, ...], schema.get("required", ()))
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, entry in _properties(schema).items():
        path = f"{prefix}{name}"
        default = "must be given" if name in required else _default(entry)
        lines.append(f"| `{path}` | {_value(entry, path)} | {default} | {_cell(str(entry.get('description', '')))} |")
    return "\n".join(lines) + "\n"


def _value(entry: Entry, path: str) -> str:
    limits = [f"{word} {entry[name]}" for name, word in LIMIT_WORDS.items() if name in entry]
    number = [f"{entry['minItems']} or more"] if entry.get("minItems") else []
    number += ["none twice"] if entry.get("uniqueItems") else []
    return ", ".join([_type(entry, path), *limits]) + (f" ({', '.join(number)})" if number else "")


def _type(entry: Entry, path: str) -> str:
    if "anyOf" in entry:
        options = _entries(entry["anyOf"])
        return " or ".join(dict.fromkeys(_type(option, path) for option in options if option.get("type") != "null"))
    if "enum" in entry:
        return "one of " + ", ".join(f"`{value}`" for value in value_from_json(tuple[object, ...], entry["enum"]))
    if entry["type"] == "array":
        items = _type(as_object(entry["items"]), path)
        return f"list of objects: {items.removeprefix(_OBJECT)}" if items.startswith(_OBJECT) else f"list of: {items}"
    if "properties" in entry:
        return f"{_OBJECT}see [`{path}`](#{path.replace('.', '').lower()})"
    if isinstance(entry.get("additionalProperties"), Mapping):
        return f"object of names, each: {_type(as_object(entry['additionalProperties']), f'{path}.NAME')}"
    return _TYPES[str(entry["type"])]


def _default(entry: Entry) -> str:
    default = entry.get("default")
    if default is None:
        return "none"
    return "see there" if "properties" in entry else f"`{json.dumps(default)}`"


def _properties(schema: Entry) -> Mapping[str, Entry]:
    return {name: as_object(entry) for name, entry in as_object(schema["properties"]).items()}


def _entries(options: object) -> tuple[Entry, ...]:
    return value_from_json(tuple[dict[str, object], ...], options)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


_OBJECT = "object: "
_TYPES = {"boolean": "`true` or `false`", "integer": "whole number", "number": "number", "string": "text"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
