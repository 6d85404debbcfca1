"""How every plot of the report is drawn: one look, inline SVG, and the same bytes for the same values.

Matplotlib without its global state: a ``Figure`` with its own SVG canvas, inside settings that are put back afterwards. Text stays text
(the reader's own font, found by a search in the page, escaped by the SVG writer) and is never read as a formula.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterable
from html import escape

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from calibration.number_formats.number_format import FormatTable
from calibration.number_formats.precision import Precision

WIDE, HALF = 10.4, 5.1  # inches; the page shows both at the same scale
RIGHT, TOP = 0.15, 0.3  # inches beside the axes
MAX_LABEL, MAX_TAIL = 30, 25  # characters of a layer's name, and of its end
LETTER = 0.58  # width of a letter, in sizes of the font
INK, FAINT, LINE = "#27313b", "#8a949e", "#d5dadf"
GOOD, BAD = "#0067a5", "#b84300"  # blue and vermilion, which every reader tells apart; marks differ in shape too
BEFORE = "#aab4be"
CHOSEN = "#e0a100"
_OTHER_COLOUR = "#3a3a3a"
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}  # a date would differ at every run
_THEMED = {INK: "ink", FAINT: "faint", LINE: "line", GOOD: "good", BAD: "bad", BEFORE: "before", "#ffffff": "page"}  # in ``style``
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_HEAD = re.compile(r"^.*?<svg [^>]*?viewBox=\"([-0-9. ]+)\"[^>]*>", re.DOTALL)
_GROUP = re.compile(r"<g id=\"[^\"]*\">")  # the same in every plot, and a page may use an id only once


def svg_of(name: str, title: str, size: tuple[float, float], margins: tuple[float, float], paint: Callable[[Figure], None]) -> str:
    """Return a plot as an ``<svg>`` element that can stand in a page.

    Args:
        name: Of the plot, unique in its page: the ids inside are derived from it.
        title: What it shows, for a reader who cannot see it.
        size: Width (WIDE or HALF) and height, inches.
        margins: Room on the left and below for what stands beside the axes, inches; laying out by measuring every text costs half a second.
        paint: Draws on the empty figure.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()  # whatever the user's own settings are
        _settle(name)
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the reader's browser has its own fonts
        figure = Figure(figsize=size)
        figure.subplots_adjust(
            left=margins[0] / size[0], bottom=margins[1] / size[1], right=1.0 - RIGHT / size[0], top=1.0 - TOP / size[1], hspace=0.08
        )
        FigureCanvasSVG(figure)
        paint(figure)
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    text = buffer.getvalue()
    head = _HEAD.match(text)
    assert head is not None  # the writer always gives a view box
    opening = f'<svg class="{"wide" if size[0] > HALF else "half"}" viewBox="{head.group(1)}" role="img" aria-label="{escape(title)}">'
    return opening + _GROUP.sub("<g>", text[head.end() :]).strip()


def themed(svg: str) -> str:
    """Return a plot in the colours of the page that it stands in, which a dark screen changes."""
    return _COLOUR.sub(lambda found: f"var(--{_THEMED[found[0]]})" if found[0] in _THEMED else found[0], svg)


def label_of(name: str) -> str:
    """Return a layer's name as it fits beside a bar: its end is kept, which tells layers apart; no control characters."""
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
    if len(shown) <= MAX_LABEL:
        return shown
    return f"{shown[: MAX_LABEL - MAX_TAIL - 1]}…{shown[-MAX_TAIL:]}"


def room_for(labels: Iterable[str], points: float) -> float:
    """Return the inches that the longest of these labels takes at a size of ``points``, about."""
    return max((len(label) for label in labels), default=0) * points * LETTER / 72.0 + 0.12


def colour_of(precision: str, formats: Iterable[FormatTable] = Precision) -> str:
    """Return the colour of a precision, the same in every plot."""
    return next((row.colour for row in formats if row == precision), _OTHER_COLOUR)


def plain_powers(axis: Axis) -> None:
    """Label a logarithmic axis with numbers as they are typed, not with formulas; between the decades only where there are few."""
    axis.set_major_formatter(LogFormatter())
    axis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))


def number(value: float | None) -> float:
    """Return a number of the report; not a number where there is none."""
    return math.nan if value is None else value


def dress(axes: Axes, title: str, x: str, y: str, *, grid: str = "both") -> None:
    """Give axes their texts and a faint grid ("x", "y" or "both")."""
    axes.set_title(title, fontweight="bold")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if grid in ("x", "both"):
        axes.xaxis.grid(visible=True)
    if grid in ("y", "both"):
        axes.yaxis.grid(visible=True)


def _settle(name: str) -> None:
    """Set how plots look; the ids of the plot ``name`` follow from its content and its name."""
    matplotlib.rc("svg", fonttype="none", hashsalt=name)
    matplotlib.rc("text", parse_math=False, color=INK)
    matplotlib.rc("font", **{"sans-serif": ["DejaVu Sans"], "size": 8.0})
    matplotlib.rc("axes", labelcolor=INK, edgecolor=FAINT, linewidth=0.7, titlesize=9.0, titlelocation="left", axisbelow=True)
    matplotlib.rc("axes.spines", top=False, right=False)
    matplotlib.rc("xtick", color=INK)
    matplotlib.rc("ytick", color=INK)
    matplotlib.rc("grid", color=LINE, linewidth=0.5)
    matplotlib.rc("legend", frameon=False, fontsize=7.5)
    matplotlib.rc("savefig", facecolor="none")
