"""Makes a picture that stands by itself out of a drawing for a page; a small one, since it is kept with the sources."""

from __future__ import annotations

import re

_TAGS = re.compile(r"<[^>]*>")  # labels, between them, stay as they are
_DECIMALS = re.compile(r"(?<![#\w])-?\d+\.\d{3,}")  # coordinates in points, not the colours and names behind '#'


def svg_file(drawing: str) -> str:
    """Return the text of an SVG file: with its namespaces, without indents, coordinates to a hundredth of a point."""
    lines = "\n".join(line.strip() for line in drawing.splitlines())
    short = _TAGS.sub(lambda tag: _DECIMALS.sub(lambda found: f"{float(found[0]):.2f}", tag[0]), lines)
    return short.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" ', 1)
