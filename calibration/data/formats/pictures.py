"""Reads a .zip of pictures as the model takes them: decoded one after the other into the one array that the job keeps.

Pictures are JPEG, PNG, WebP or BMP files. Turned pictures (a tag of EXIF) stay as they are stored, as torchvision's loader leaves them.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from calibration.data.formats.named_labels.picture_labels import CLASSES_FILE, Labelled, labels_from_folders, labels_from_table
from calibration.data.formats.preprocess import EXAMPLE, Colors, Interpolation, Layout, Preprocess, Resize, ResizeMode
from calibration.data.formats.wanted import Found, Wanted
from calibration.data.formats.zip_members import check_directory, members_of, read_member
from calibration.errors import InvalidCalibrationSetError, InvalidConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

    from calibration.onnx_model.model_io import TensorSpec

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MAX_PIXELS = 64 * 2**20  # of one picture
MAX_FILE_BYTES = 256 * 2**20
_TEXT_BYTES = 64 * 2**20
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # of eight bits; others would lose something unsaid
Bytes = NDArray[np.uint8]


def is_picture(name: str) -> bool:
    """Return whether a file is named like a picture."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def read_pictures(file: BinaryIO, name: str, wanted: Wanted) -> Found:
    """Return the pictures of a .zip, prepared for the model's only input, and their labels where there are any.

    Args:
        file: At its start.
        name: Of the file, for a message.
        wanted: What the model takes, and how pictures are prepared.

    Raises:
        InvalidCalibrationSetError: The model takes no pictures, a file is none, or they do not fit the model.
        InvalidConfigError: It is not stated how they are prepared.
    """
    target = _target(wanted, name)
    check_directory(file, name)
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in members_of(archive, name)}
        pictures = [entry for entry in entries if is_picture(entry)]
        labelled = _labelled(archive, entries, pictures, wanted.preprocess, name)
        into: NDArray[np.generic] | None = None
        for index, picture in enumerate(labelled.files):
            data = read_member(archive, entries[picture], MAX_FILE_BYTES, name)
            prepared = target.prepared(_pixels(data, picture, target, name), picture, name)
            if into is None:
                into = np.empty((len(labelled.files), *prepared.shape), dtype=np.dtype(target.spec.dtype))
            if prepared.shape != into.shape[1:]:
                raise InvalidCalibrationSetError(
                    f"{name}: picture '{picture}' gives an array of shape {prepared.shape}, those before it {into.shape[1:]}", fix=_RESIZE
                )
            into[index] = prepared
    assert into is not None  # there is a picture: the table of readers has looked
    arrays = {target.spec.name: into}
    if labelled.labels is not None:
        arrays[wanted.label_name] = labelled.labels
    return Found(arrays, labelled.classes, labelled.are_classes_stated, labelled.notes)


@dataclass(frozen=True, slots=True)
class _Target:
    """The input that takes the pictures, and how they get there."""

    spec: TensorSpec
    layout: Layout
    colors: Colors
    has_channels: bool  # whether there is an axis for them
    preprocess: Preprocess

    def prepared(self, pixels: Bytes, picture: str, name: str) -> NDArray[np.generic]:
        """Return one sample of (height, width, channels) pixels, checked against the sizes that the model fixes."""
        dims = self.spec.shape[1:]
        wanted = dims if not self.has_channels or self.layout is Layout.NHWC else (*dims[1:], dims[0])
        for dim, found in zip(wanted[:2], pixels.shape, strict=False):
            if isinstance(dim, int) and dim != found:
                height, width = (one if isinstance(one, int) else "any" for one in wanted[:2])
                raise InvalidCalibrationSetError(
                    f"{name}: picture '{picture}' has {pixels.shape[0]} x {pixels.shape[1]} pixels (height x width) after what preprocess "
                    f"says, {height} x {width} expected",
                    fix=_RESIZE,
                )
        is_float = np.dtype(self.spec.dtype).kind == "f"
        values: NDArray[np.generic] = self.preprocess.normalized(pixels, self.colors.channels) if is_float else pixels
        if not self.has_channels:
            return values[..., 0]
        return np.moveaxis(values, -1, 0) if self.layout is Layout.NCHW else values


def layout_of(shape: Sequence[int | str | None]) -> Layout | None:
    """Return where an input of four axes has its channels, by the sizes that the model fixes; None where they do not tell."""
    first, last = (shape[axis] in (1, 3) for axis in (1, 3))
    return None if first == last else (Layout.NCHW if first else Layout.NHWC)


def _target(wanted: Wanted, name: str) -> _Target:
    """Return the input that takes pictures."""
    if len(wanted.inputs) != 1:
        raise InvalidCalibrationSetError(
            f"{name}: pictures found, which feed one input; the model has {len(wanted.inputs)}: {', '.join(map(repr, wanted.names))}",
            fix="Write an .npz with one array per model input.",
        )
    (spec,) = wanted.inputs
    preprocess, rank = wanted.preprocess, len(spec.shape)
    dims = ", ".join("any" if dim is None else str(dim) for dim in spec.shape)
    if rank not in (3, 4) or np.dtype(spec.dtype).kind not in "fu":
        raise InvalidCalibrationSetError(
            f"{name}: pictures found, but the model's input '{spec.name}' is no picture: {spec.dtype} of shape ({dims})",
            fix="Give the samples that the model takes, as an .npz with one array per model input.",
        )
    has_channels = rank == len(Layout.NCHW)
    layout = (preprocess.layout or layout_of(spec.shape)) if has_channels else Layout.NHWC
    if layout is None:
        raise InvalidConfigError(
            f"preprocess.layout: missing, and the shape ({dims}) of the input '{spec.name}' does not say which axis holds the channels",
            fix='Add "layout": "NCHW" or "NHWC".',
        )
    count = spec.shape[1 if layout is Layout.NCHW else 3] if has_channels else 1
    colors = preprocess.colors or (Colors.GREY if count == 1 else Colors.RGB)
    if isinstance(count, int) and count != colors.channels:
        raise InvalidConfigError(
            f"preprocess: the colors {colors} in the layout {layout} are {colors.channels} channels, the input '{spec.name}' of shape "
            f"({dims}) has {count}",
            fix="State the layout and the colors that the model takes.",
        )
    if np.dtype(spec.dtype).kind == "f" and not preprocess.is_stated:
        raise InvalidConfigError(
            f"preprocess: it is not stated how the pixels of {name}, 0 to 255, become the {spec.dtype} values of the input '{spec.name}'",
            fix=f"Add to the configuration {EXAMPLE}.",
        )
    return _Target(spec, layout, colors, has_channels, preprocess)


def _labelled(
    archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], pictures: Sequence[str], preprocess: Preprocess, name: str
) -> Labelled:
    """Return which pictures are samples, with their labels."""
    stated = preprocess.classes or ()
    lists = [entry for entry in entries if PurePosixPath(entry).name == CLASSES_FILE]
    if not stated and lists:
        lines = _text(archive, entries[lists[0]], name).splitlines()
        stated = tuple(line.strip() for line in lines if line.strip())
        if len(set(stated)) < len(stated):
            raise InvalidCalibrationSetError(
                f"{name}: '{lists[0]}' names a class twice", fix="Write each class once, in the model's order."
            )
    tables = [entry for entry in entries if entry.lower().endswith(".csv")]
    if len(tables) > 1:
        raise InvalidCalibrationSetError(
            f"{name}: holds {len(tables)} tables: {', '.join(map(repr, tables[:3]))}, one expected",
            fix="Leave one .csv file of labels there.",
        )
    if tables:
        return labels_from_table(_text(archive, entries[tables[0]], name), pictures, stated, name, tables[0])
    return labels_from_folders(pictures, stated, name)


def _text(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> str:
    try:
        return read_member(archive, entry, _TEXT_BYTES, name).decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise InvalidCalibrationSetError(f"{name}: '{entry.filename}' is not UTF-8 text", fix="Save it as UTF-8.") from exc


def _pixels(data: bytes, picture: str, target: _Target, name: str) -> Bytes:
    """Return the pixels of one file, resized and cropped, (height, width, channels)."""
    from PIL import Image, UnidentifiedImageError  # here, since the server knows the formats and decodes nothing

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise _too_large(picture, name, f"{image.width} x {image.height} pixels")
                if image.mode not in _MODES:
                    raise InvalidCalibrationSetError(
                        f"{name}: picture '{picture}' has pixels of the kind {image.mode}, eight bits a channel expected",
                        fix="Convert it the way the model's input is made, and give an .npz.",
                    )
                grey = target.colors is Colors.GREY
                found = np.asarray(_cut(_sized(image.convert("L" if grey else "RGB"), target.preprocess), target.preprocess, picture, name))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise _too_large(picture, name, "too many pixels") from exc
    except UnidentifiedImageError as exc:
        raise InvalidCalibrationSetError(
            f"{name}: '{picture}' is no JPEG, PNG, WebP or BMP picture, whatever its name says",
            fix="Remove it, or save it as one of these.",
        ) from exc
    except (OSError, SyntaxError, ValueError, EOFError) as exc:
        raise InvalidCalibrationSetError(
            f"{name}: picture '{picture}' is damaged or truncated: {exc}", fix="Copy the file again, or remove it."
        ) from exc
    if found.ndim == _PLANE:
        found = found[..., None]
    return np.ascontiguousarray(found[..., ::-1] if target.colors is Colors.BGR else found)


def _sized(image: Image, preprocess: Preprocess) -> Image:
    """Return a picture in the size that the user states."""
    from PIL import Image as Images

    resize = preprocess.resize
    if resize is None:
        return image
    methods = {
        Interpolation.NEAREST: Images.Resampling.NEAREST,
        Interpolation.BILINEAR: Images.Resampling.BILINEAR,
        Interpolation.BICUBIC: Images.Resampling.BICUBIC,
        Interpolation.LANCZOS: Images.Resampling.LANCZOS,
        Interpolation.BOX: Images.Resampling.BOX,
    }
    height, width = resized(image.height, image.width, resize)
    found = image.resize((width, height), methods[resize.interpolation])
    if resize.mode is not ResizeMode.LETTERBOX:
        return found
    fill: int | tuple[int, int, int] = resize.fill if found.mode == "L" else (resize.fill, resize.fill, resize.fill)
    whole = Images.new(found.mode, (resize.size[-1], resize.size[0]), fill)
    whole.paste(found, ((resize.size[-1] - width) // 2, (resize.size[0] - height) // 2))
    return whole


def resized(height: int, width: int, resize: Resize) -> tuple[int, int]:
    """Return the height and the width that a picture gets, before what is filled up around it.

    Raises:
        ValueError: It would get too many pixels.
    """
    if resize.mode is ResizeMode.EXACT:
        return resize.size[0], resize.size[-1]
    if resize.mode is ResizeMode.LETTERBOX:
        share = min(resize.size[0] / height, resize.size[-1] / width)
        return max(1, round(height * share)), max(1, round(width * share))
    (side,) = resize.size  # as torchvision rounds
    found = (side, int(side * width / height)) if height <= width else (int(side * height / width), side)
    if found[0] * found[1] > MAX_PIXELS:
        raise ValueError(f"resized it has {found[0]} x {found[1]} pixels")
    return found


def _cut(image: Image, preprocess: Preprocess, picture: str, name: str) -> Image:
    """Return the middle of a picture, where the user wants that."""
    crop = preprocess.crop
    if crop is None:
        return image
    height, width = crop[0], crop[-1]
    if height > image.height or width > image.width:
        raise InvalidCalibrationSetError(
            f"{name}: picture '{picture}' has {image.height} x {image.width} pixels (height x width), fewer than preprocess.crop cuts out: "
            f"{height} x {width}",
            fix='Resize first, such as "resize": {"size": [256], "mode": "shorter_side"}.',
        )
    top, left = round((image.height - height) / 2.0), round((image.width - width) / 2.0)  # as torchvision rounds
    return image.crop((left, top, left + width, top + height))


def _too_large(picture: str, name: str, found: str) -> InvalidCalibrationSetError:
    return InvalidCalibrationSetError(
        f"{name}: picture '{picture}' has {found}, at most {MAX_PIXELS} expected", fix="Scale it down to what the model takes."
    )


_PLANE = 2
_RESIZE = (
    "State how pictures are brought to the model's size, as it was when the model was trained: "
    '"preprocess": {"resize": {"size": [256], "mode": "shorter_side"}, "crop": [224], ...}.'
)
