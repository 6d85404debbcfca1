"""Where labels stand beside points so that none covers another, a point, or the edge of the axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from engine_builder.reporting.figures.drawing import LETTER

SIZE = 7.0  # of the letters, points
MARK = 3.5  # half of a mark's side, points
_RINGS = (4.0, 10.0, 17.0, 25.0)  # distances from a point at which a label may stand, points
_SIDES = ((1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, in points."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        """Return whether the two cover a place together."""
        return self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top

    def is_inside(self, other: Box) -> bool:
        """Return whether all of it lies in the other."""
        return other.left <= self.left and self.right <= other.right and other.bottom <= self.bottom and self.top <= other.top


def free_boxes(points: Sequence[tuple[float, float]], labels: Sequence[tuple[int, str]], room: Box) -> list[Box | None]:
    """Return for each label the nearest free place beside its point, None where there is none.

    Args:
        points: Of all marks, in points.
        labels: The index of a point and its text, the most important first.
        room: That labels may take.
    """
    taken = [Box(x - MARK, y - MARK, x + MARK, y + MARK) for x, y in points]
    found: list[Box | None] = []
    for index, text in labels:
        box = next((one for one in _around(*points[index], text) if one.is_inside(room) and not any(map(one.meets, taken))), None)
        found.append(box)
        if box is not None:
            taken.append(box)
    return found


def label_points(axes: Axes, points: Sequence[tuple[float, float]], labels: Sequence[tuple[int, str]]) -> None:
    """Write labels beside points, far ones with a line to their point; a label without a free place is left out.

    Args:
        axes: With all that is drawn in them.
        points: Of all marks, in the units of the axes.
        labels: The index of a point and its text, the most important first.
    """
    figure = axes.get_figure()
    assert figure is not None
    scale = 72.0 / figure.dpi
    axes.autoscale_view()  # the limits follow from what was drawn only now
    ends = axes.transAxes.transform([(0.0, 0.0), (1.0, 1.0)]) * scale
    room = Box(ends[0][0], ends[0][1], ends[1][0] + 2.0 * MARK, ends[1][1] + 2.0 * MARK)
    at = [(float(x) * scale, float(y) * scale) for x, y in axes.transData.transform(points)] if points else []
    for (index, text), box in zip(labels, free_boxes(at, labels, room), strict=True):
        if box is None:
            continue
        x, y = at[index]
        offset = (box.left - x, box.bottom - y)
        is_far = max(abs(box.left - x), abs(box.right - x)) - (box.right - box.left) > _RINGS[1] or abs(offset[1]) > _RINGS[2]
        line = {"arrowstyle": "-", "linewidth": 0.4, "shrinkA": 0.0, "shrinkB": 2.0} if is_far else None
        axes.annotate(text, points[index], xytext=offset, textcoords="offset points", fontsize=SIZE, arrowprops=line)


def _around(x: float, y: float, text: str) -> list[Box]:
    """Return the places that a label may take, the nearest first."""
    width, height = len(text) * SIZE * LETTER, SIZE
    places = []
    for ring in _RINGS:
        for right, up in _SIDES:
            left = x + ring if right > 0 else x - ring - width if right < 0 else x - width / 2.0
            bottom = y + ring if up > 0 else y - ring - height if up < 0 else y - height / 2.0
            places.append(Box(left, bottom, left + width, bottom + height))
    return places
