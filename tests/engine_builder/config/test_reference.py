from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import pytest

from engine_builder.config.reference import BEGIN, END, main, reference, with_reference
from engine_builder.config.schema import describe


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Part:
    """An object in an object."""

    size: int = field(metadata={"minimum": 1, "maximum": 2**20, "description": "How big | how small."})


@dataclass(frozen=True)
class Whole:
    """Every kind of key."""

    colours: tuple[Colour, ...] = field(default=(Colour.RED,), metadata={"minItems": 1, "uniqueItems": True, "description": "Some."})
    share: float | None = field(default=None, metadata={"exclusiveMinimum": 0, "description": "Of all."})
    parts: Mapping[str, Colour | Part] = field(default_factory=dict, metadata={"description": "By name."})
    is_new: bool = False
    pieces: tuple[Part, ...] = field(default=(), metadata={"description": "In a row."})


EXPECTED = """\
| key | value | default | meaning |
|---|---|---|---|
| `colours` | list of: one of `red`, `blue` (1 or more, none twice) | `["red"]` | Some. |
| `share` | number, above 0 | none | Of all. |
| `parts` | object of names, each: one of `red`, `blue` or object: see [`parts.NAME`](#partsname) | `{}` | By name. |
| `is_new` | `true` or `false` | `false` |  |
| `pieces` | list of objects: see [`pieces`](#pieces) | `[]` | In a row. |

### `parts.NAME`

| key | value | default | meaning |
|---|---|---|---|
| `parts.NAME.size` | whole number, at least 1, at most 1048576 | must be given | How big \\| how small. |

### `pieces`

| key | value | default | meaning |
|---|---|---|---|
| `pieces.size` | whole number, at least 1, at most 1048576 | must be given | How big \\| how small. |
"""


def test_every_key_has_its_row_in_the_table_of_its_object() -> None:
    assert reference(describe(Whole)) == EXPECTED


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    page = with_reference(f"before\n{BEGIN}\nold\n{END}\nafter\n", describe(Whole))
    assert page == f"before\n{BEGIN}\n\n{EXPECTED}\n{END}\nafter\n"


@pytest.mark.parametrize("page", ["none", BEGIN, END])
def test_a_page_without_both_marks_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="the page has no"):
        with_reference(page, describe(Whole))


def test_the_command_rewrites_its_file(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Settings\n{BEGIN}\n{END}\n")
    assert main([str(page)]) == 0
    assert "| `accuracy.min_relative` | number, at least 0, at most 1 |" in page.read_text()
