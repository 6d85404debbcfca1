"""The pages: their fenced blocks, headings, links and spans of code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benchmarks" / "README.md",
    ROOT / "examples" / "fashion_mnist" / "README.md",
)


@dataclass(frozen=True)
class Block:
    """A fenced block: ``language word mark="text"`` behind its fence."""

    page: Path
    line: int  # of the fence, from 1
    language: str
    words: tuple[str, ...]
    marks: Mapping[str, str]
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    return blocks_of(page.read_text(encoding="utf-8"), page)


def blocks_of(text: str, page: Path) -> list[Block]:
    found: list[Block] = []
    inside: list[str] | None = None
    info, start = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("```") and inside is None:
            info, start, inside = line.removeprefix("```"), number, []
        elif line == "```" and inside is not None:
            marks = dict(re.findall(r'(\S+)="([^"]*)"', info))
            language, *words = re.sub(r'\S+="[^"]*"', "", info).split() or [""]
            found.append(Block(page, start, language, tuple(words), marks, "\n".join(inside) + "\n"))
            inside = None
        elif inside is not None:
            inside.append(line)
    if inside is not None:
        raise ValueError(f"{page}:{start}: the block has no end")
    return found


def prose(page: Path) -> str:
    """Return the page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the names that GitHub gives to the headings."""
    headings = re.findall(r"^#{1,6} (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    """Return the targets of all links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def spans(page: Path) -> list[str]:
    """Return what stands between single backticks."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(page))


def table(page: Path, heading: str) -> list[list[str]]:
    """Return the cells of the rows, without the head, of the first table below a heading."""
    section = prose(page).split(f" {heading}\n", maxsplit=1)[1]
    lines = re.search(r"(?:^\|.*\n)+", section, flags=re.MULTILINE)
    assert lines is not None, f"{name_of(page)}: no table below {heading!r}"
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[0].splitlines()[2:]]
