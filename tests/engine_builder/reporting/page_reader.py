"""Reads a page as a reader would: headings, and the texts, tables and plots below each."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "img", "hr"}
HEADINGS = ("h1", "h2", "summary")


@dataclass
class Section:
    """What stands below a heading, up to the next."""

    texts: list[str] = field(default_factory=list)  # outside plots and tables
    tables: list[list[list[str]]] = field(default_factory=list)  # rows of cells, the head first
    plots: list[str] = field(default_factory=list)  # what each shows

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows of all tables of the section, cells by their column."""
        return [dict(zip(table[0], row, strict=True)) for table in self.tables for row in table[1:]]


class Page(HTMLParser):
    """A page. One with a tag that does not fit, with a heading twice, or with a row of too few or many cells fails."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()
        self.ids: list[str] = []
        self.plots: list[str] = []
        self.texts: list[str] = []
        self.sections: dict[str, Section] = {}  # those that unfold as "heading: what unfolds"
        self.headings: list[str] = []  # without those that unfold
        self.badges: list[str] = []  # the classes of the verdict's badge
        self.low_rows: list[list[str]] = []
        self._heading = ""
        self._section = Section()
        self.feed(text)
        self.close()
        assert self.open == []
        for section in self.sections.values():
            assert all(len(row) == len(table[0]) for table in section.tables for row in table)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def tiles(self) -> list[str]:
        return [tile.strip() for tile in self.sections["Optimization report"].text.split("|")[1:]]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        values = {name: value or "" for name, value in attrs}
        self.links.update(value for name, value in values.items() if name == "xlink:href")
        self.ids += [values["id"]] if "id" in values else []
        if tag == "svg":
            self.plots.append(values["aria-label"])
            self._section.plots.append(values["aria-label"])
        if tag in HEADINGS:
            self._heading = ""
        if tag == "table":
            self._section.tables.append([])
        if tag == "tr":
            self._section.tables[-1].append([])
            self.low_rows += [self._section.tables[-1][-1]] if values.get("class") == "low" else []
        if tag in ("td", "th"):
            self._section.tables[-1][-1].append("")
        if values.get("class") == "tile":
            self._section.texts.append("|")
        if values.get("class", "").startswith("badge"):
            self.badges.append(values["class"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        if tag != "code":  # stands inside a line
            self._section.texts.append(" ")
        if tag in HEADINGS:
            if tag == "summary":
                self._heading = f"{self.headings[-1]}: {self._heading}"
            else:
                self.headings.append(self._heading)
            assert self._heading not in self.sections
            self._section = self.sections[self._heading] = Section()

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.open and self.open[-1] in HEADINGS:
            self._heading += data
        elif {"td", "th"} & set(self.open):
            self._section.tables[-1][-1][-1] += data
        elif "svg" not in self.open:
            self._section.texts.append(data)


def rows_of(table: str) -> list[dict[str, str]]:
    """Return the rows of a table that stands alone, cells by their column."""
    return Page(f"<h1>alone</h1>{table}").sections["alone"].rows
