"""Reads a table of a page back, so that a test compares cells by the names of their columns."""

from __future__ import annotations


def table(page: str, *columns: str) -> list[dict[str, str]]:
    """Return the rows, each cell by its column, of the one table of a Markdown page that has all the columns named."""
    tables = [block.splitlines() for block in page.split("\n\n") if block.lstrip().startswith("|")]
    (lines,) = (lines for lines in tables if set(columns) <= set(_cells(lines[0])))
    return [dict(zip(_cells(lines[0]), _cells(line), strict=True)) for line in lines[2:]]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]
