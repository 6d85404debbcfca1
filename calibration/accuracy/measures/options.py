"""What a user may say of how outputs are read when they are measured; each measure reads the few that its row in the table names."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class BoxFormat(enum.StrEnum):
    """What the four numbers of a box are, in pixels or in shares of the picture."""

    X1Y1X2Y2 = "x1y1x2y2"  # two corners
    Y1X1Y2X2 = "y1x1y2x2"  # two corners, as TensorFlow has them
    X1Y1WH = "x1y1wh"  # a corner and the size
    CXCYWH = "cxcywh"  # the middle and the size


class Background(enum.StrEnum):
    """Which class of a detector says that there is nothing."""

    NONE = "none"
    FIRST = "first"
    LAST = "last"


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """How a metric reads the outputs. What is left out is found from the float model's outputs, or has the default."""

    threshold: float | None = field(
        default=None,
        metadata={
            "description": "A score of at least this is a decision (0.5 by default; for logits 0), a pixel of a mask (the same), or a "
            "detection that counts (0.25 by default, or half of the usual best score of a picture where that is lower)."
        },
    )
    blank: int | None = field(
        default=None,
        metadata={
            "minimum": -1,
            "description": "Class of CTC frames that stands for no symbol; -1 is the last one. By default the first or the last class, "
            "whichever the float model gives more frames.",
        },
    )
    neighbours: int | None = field(
        default=None,
        metadata={
            "minimum": 1,
            "description": "How many nearest neighbours a retrieval returns; 10 by default, or a quarter of the set where that is less.",
        },
    )
    class_axis: int | None = field(
        default=None,
        metadata={
            "minimum": 1,
            "maximum": 4,
            "description": "Axis of the classes in an output of dense classes; by default that beside two of one size, else the shorter "
            "one of the first behind the samples and the last.",
        },
    )
    boxes: BoxFormat | None = field(
        default=None,
        metadata={"description": "Form of a detector's boxes; by default x1y1x2y2 where nearly all boxes can be that, else cxcywh."},
    )
    objectness: bool = field(
        default=False,
        metadata={"description": "A score of there being any object stands before those of the classes, which are multiplied by it."},
    )
    background: Background | None = field(
        default=None,
        metadata={
            "description": "Class of a detector that says that there is nothing; by default the first or the last where that has more than "
            "half of the probability in more than half of the rows."
        },
    )
    nms_iou: float = field(
        default=0.65,
        metadata={
            "exclusiveMinimum": 0,
            "maximum": 1,
            "description": "Of detections of one class that overlap by more than this, the best stays; 1 keeps all. Not applied where the "
            "graph gives one class for each row.",
        },
    )

    def given(self) -> tuple[str, ...]:
        """Return the names of the options that are not at their defaults."""
        plain = MeasureOptions()
        return tuple(name for name in self.__dataclass_fields__ if getattr(self, name) != getattr(plain, name))
