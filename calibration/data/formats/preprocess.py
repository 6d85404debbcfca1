r"""How pictures become what a model takes: the user's statement, never a guess.

A pixel p of 0..255 becomes (p \* scale - mean) / std, for each channel, after the picture was resized and cropped. That is the order of
torchvision's transforms, and ``scale`` is 1/255 where only ``mean`` or ``std`` are stated, as it is there.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InvalidConfigError

UNIT_SCALE = 1.0 / 255.0
EXAMPLE = (
    '"preprocess": {"scale": 0.00392156862745098} for pixels in 0..1; with "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225] too '
    "for networks trained on ImageNet"
)


class ResizeMode(enum.StrEnum):
    """What becomes of the picture's shape."""

    SHORTER_SIDE = "shorter_side"
    EXACT = "exact"
    LETTERBOX = "letterbox"


class Interpolation(enum.StrEnum):
    """How pixels between pixels are found."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"
    BOX = "box"


class Layout(enum.StrEnum):
    """Order of a picture input's axes: samples, channels, height and width."""

    NCHW = "NCHW"
    NHWC = "NHWC"


class Colors(enum.StrEnum):
    """Channels of a picture, in their order."""

    RGB = "RGB"
    BGR = "BGR"
    GREY = "grey"

    @property
    def channels(self) -> int:
        """Number of channels."""
        return 1 if self is Colors.GREY else 3


@dataclass(frozen=True, slots=True)
class Resize:
    """To what size pictures are brought, and how."""

    size: tuple[int, ...] = field(
        metadata={
            "minItems": 1,
            "minimum": 1,
            "maximum": 16384,
            "description": "[height, width] in pixels, or one number for a square; for `shorter_side` one number.",
        }
    )
    mode: ResizeMode = field(
        default=ResizeMode.EXACT,
        metadata={
            "description": "`exact`: stretched to the size; `shorter_side`: the shorter side gets that length, the shape is kept; "
            "`letterbox`: the whole picture fits into the size, the rest is filled."
        },
    )
    interpolation: Interpolation = field(
        default=Interpolation.BILINEAR, metadata={"description": "As Pillow does it, with antialiasing, as torchvision does by default."}
    )
    fill: int = field(
        default=114, metadata={"minimum": 0, "maximum": 255, "description": "Value of the pixels around a letterboxed picture."}
    )

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit the mode."""
        most = 1 if self.mode is ResizeMode.SHORTER_SIDE else 2
        if not 1 <= len(self.size) <= most:
            raise InvalidConfigError(
                f"size: found {list(self.size)}, expected {'one number' if most == 1 else '[height, width]'} for the mode {self.mode}",
                fix="Give one number, or another mode." if most == 1 else "Give the height and the width.",
            )


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How pictures, and arrays of bytes for inputs of floats, are prepared for the model."""

    resize: Resize | None = field(default=None, metadata={"description": "Of picture files; without it they must have the model's size."})
    crop: tuple[int, ...] | None = field(
        default=None,
        metadata={
            "minItems": 1,
            "minimum": 1,
            "maximum": 16384,
            "description": "[height, width] that is cut from the middle of picture files, or one number for a square.",
        },
    )
    scale: float | None = field(
        default=None,
        metadata={
            "exclusiveMinimum": 0,
            "description": "What pixels of 0..255 are multiplied by, before the mean is taken off: 1 leaves them. 1/255 where only `mean` "
            "or `std` are given.",
        },
    )
    mean: tuple[float, ...] | None = field(
        default=None, metadata={"minItems": 1, "description": "Taken off the scaled pixels: one number for each channel, or one for all."}
    )
    std: tuple[float, ...] | None = field(
        default=None,
        metadata={
            "minItems": 1,
            "exclusiveMinimum": 0,
            "description": "What is then divided by: one number for each channel, or one for all.",
        },
    )
    layout: Layout | None = field(default=None, metadata={"description": "Of the model's input; found from its shape by default."})
    colors: Colors | None = field(
        default=None, metadata={"description": "Channels that the model takes; RGB by default, or grey for an input of one channel."}
    )
    classes: tuple[str, ...] | None = field(
        default=None,
        metadata={
            "minItems": 1,
            "uniqueItems": True,
            "description": "Names of the classes in the model's order, where labels come as names (of folders, or in a table). By default "
            "the lines of a file `classes.txt` beside them, or all names that occur, sorted; names that are numbers are the classes "
            "themselves.",
        },
    )

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        for name in ("mean", "std"):
            given = getattr(self, name)
            if given is not None and len(given) not in (1, 3):
                raise InvalidConfigError(
                    f"{name}: found {len(given)} numbers, expected 1, or 3 for three channels", fix="Give one number for each channel."
                )
        if self.crop is not None and len(self.crop) > _MOST_SIDES:
            raise InvalidConfigError(f"crop: found {list(self.crop)}, expected [height, width]", fix="Give the height and the width.")
        if self.scale is None and self.mean is not None and max(self.mean) > 1.0:
            raise InvalidConfigError(
                f"mean: found {list(self.mean)} and no scale, which is then 1/255, so that pixels are in 0..1; expected means in 0..1",
                fix='Add "scale": 1 if the means are those of pixels in 0..255.',
            )

    @property
    def is_stated(self) -> bool:
        """Whether it says how bytes become floats."""
        return self.scale is not None or self.mean is not None or self.std is not None

    def normalized(self, pixels: NDArray[np.uint8], channels: int) -> NDArray[np.float32]:
        """Return pixels as the floats that the model takes; ``is_stated`` must hold.

        Args:
            pixels: (..., channels).
            channels: How many, 1 or 3.

        Raises:
            InvalidConfigError: There is a mean or a deviation for other channels.
        """
        for name in ("mean", "std"):
            given = getattr(self, name)
            if given is not None and len(given) not in (1, channels):
                raise InvalidConfigError(
                    f"preprocess.{name}: found {len(given)} numbers, expected {channels}: the model's input has so many channels",
                    fix="Give one number for each channel, or one for all.",
                )
        scale = UNIT_SCALE if self.scale is None else self.scale
        found = pixels.astype(np.float32) * np.float32(scale)
        if self.mean is not None:
            found -= np.asarray(self.mean, dtype=np.float32)
        if self.std is not None:
            found /= np.asarray(self.std, dtype=np.float32)
        return found


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """How rows of tokens of different lengths become one array."""

    pad: int | None = field(
        default=None,
        metadata={
            "description": "Token that shorter rows are filled up with at their end. It must be stated where rows differ in length, or "
            "where an attention mask is to be made."
        },
    )


_MOST_SIDES = 2
