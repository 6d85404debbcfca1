"""Labels of picture files: from a table beside them, or from the folders that they lie in.

1. A table is the only .csv file: the columns ``file`` and ``label``, or the first two of a table without a header. Files are found where
   they stand, whatever their column is called. Its rows are the samples.
2. Else, where pictures lie in several folders, the last folder of each is its class.
3. Labels that are whole numbers are the classes. Names are looked up among the classes that the user states, in the lines of a
   ``classes.txt``, or among all names that occur, sorted.
"""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InvalidCalibrationSetError

Array = NDArray[np.generic]
CLASSES_FILE = "classes.txt"
_FILE_COLUMNS = ("file", "filename", "file_name", "image", "path")
_LABEL_COLUMNS = ("label", "labels", "class", "target", "category")
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Labelled:
    """Which pictures are samples, and their labels."""

    files: tuple[str, ...]
    labels: Array | None  # (samples,)
    classes: tuple[str, ...] = ()  # where labels came as names
    are_classes_stated: bool = False
    notes: tuple[str, ...] = ()


def labels_from_table(text: str, pictures: Sequence[str], stated: Sequence[str], name: str, table: str) -> Labelled:
    """Return the samples of a table.

    Args:
        text: Of the .csv file.
        pictures: Names of all picture files.
        stated: Classes that the user states; none: those that occur.
        name: Of the file of samples, for a message.
        table: Of the .csv file.

    Raises:
        InvalidCalibrationSetError: The table is of another form, or names pictures that are not there.
    """
    what, known = f"{name}: table '{table}'", _by_any_name(pictures)
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(cell.strip() for cell in row)]
    except csv.Error as exc:
        raise InvalidCalibrationSetError(f"{what} is no .csv file: {exc}", fix=_WRITE) from exc
    if not rows or min(map(len, rows)) < _COLUMNS:
        raise InvalidCalibrationSetError(
            f"{what} has {'no rows' if not rows else 'a row of one column'}, the columns file and label expected", fix=_WRITE
        )
    file_at, label_at, has_head = _columns(rows, known, what)
    rows = rows[1:] if has_head else rows
    short = next((index for index, row in enumerate(rows, start=1 + has_head) if len(row) <= max(file_at, label_at)), None)
    if short is not None:
        raise InvalidCalibrationSetError(f"{what} has a row without a file or a label: row {short}", fix=_WRITE)
    named = [(row[file_at].strip(), row[label_at].strip()) for row in rows]
    missing = [file for file, _ in named if file not in known]
    if missing or not named:
        shown = ", ".join(f"'{file}'" for file in missing[:_SHOWN])
        raise InvalidCalibrationSetError(
            f"{name}: table '{table}' names {len(missing)} pictures that are not there, such as {shown or 'none at all'}",
            fix="Put the pictures beside the table, under the names that it has for them, and give the folder or a .zip of it.",
        )
    files = tuple(known[file] for file, _ in named)
    left_out = len(set(pictures) - set(files))
    notes = (f"{left_out} pictures without a row in '{table}' were left out",) if left_out else ()
    found = _labels([label for _, label in named], stated, name)
    return Labelled(files, found.labels, found.classes, found.are_classes_stated, notes)


def _columns(rows: Sequence[Sequence[str]], known: Collection[str], what: str) -> tuple[int, int, bool]:
    """Return where a table has the files and the labels, and whether its first row is a header.

    Args:
        rows: At least one, each of at least two cells.
        known: Names of pictures.
        what: The table, for a message.
    """
    head = [cell.strip().lower() for cell in rows[0]]
    files = next((index for index, cell in enumerate(head) if cell in _FILE_COLUMNS), None)
    has_head = files is not None or not any(cell.strip() in known or PurePosixPath(cell.strip()).suffix for cell in rows[0])
    labels = next((index for index, cell in enumerate(head) if has_head and cell in _LABEL_COLUMNS), None)
    file_at = files if files is not None else next((index for index, cell in enumerate(rows[-1]) if cell.strip() in known), 0)
    if labels is None and file_at > 0 and len(head) > _COLUMNS:
        shown = ", ".join(f"'{cell.strip()}'" for cell in rows[0][:_SHOWN])
        raise InvalidCalibrationSetError(
            f"{what} has the columns {shown}, and none is called label", fix="Call the columns file and label in the table's first line."
        )
    return file_at, labels if labels is not None else 1 if file_at == 0 else 0, has_head


def labels_from_folders(pictures: Sequence[str], stated: Sequence[str], name: str) -> Labelled:
    """Return the pictures with the folders that they lie in as their classes; without labels where all lie in one.

    Args:
        pictures: Names of the files, at least one.
        stated: Classes that the user states; none: those that occur.
        name: Of the file of samples, for a message.

    Raises:
        InvalidCalibrationSetError: Some pictures lie in no folder, or in one that is no class.
    """
    folders = [PurePosixPath(picture).parent.name for picture in pictures]
    if len({str(PurePosixPath(picture).parent) for picture in pictures}) == 1 and folders[0] not in stated:
        return Labelled(tuple(pictures), None)
    lost = [picture for picture, folder in zip(pictures, folders, strict=True) if not folder]
    if lost:
        raise InvalidCalibrationSetError(
            f"{name}: {len(lost)} pictures, such as '{lost[0]}', lie in no folder, {len(pictures) - len(lost)} others do",
            fix="Put every picture into the folder of its class, or all into one folder without classes, or add a table labels.csv.",
        )
    found = _labels(folders, stated, name)
    return Labelled(tuple(pictures), found.labels, found.classes, found.are_classes_stated)


def _labels(names: Sequence[str], stated: Sequence[str], name: str) -> Labelled:
    """Return labels as numbers, rule 3."""
    if not stated and (numbers := _numbers(names)) is not None:
        return Labelled((), numbers)
    classes = tuple(stated) or tuple(sorted(set(names)))
    place = {one: index for index, one in enumerate(classes)}
    unknown = sorted({one for one in names if one not in place})
    if unknown:
        shown = ", ".join(f"'{one}'" for one in unknown[:_SHOWN])
        raise InvalidCalibrationSetError(
            f"{name}: the label {shown} is none of the {len(classes)} classes that are stated",
            fix="Name the class as preprocess.classes (or classes.txt) does, or add it there.",
        )
    return Labelled((), np.array([place[one] for one in names], dtype=np.int64), classes, bool(stated))


def _numbers(names: Collection[str]) -> Array | None:
    """Return labels that are numbers, whole ones as int64; None of names."""
    with contextlib.suppress(ValueError, OverflowError):
        return np.array([int(one) for one in names], dtype=np.int64)
    try:
        found = np.array([float(one) for one in names], dtype=np.float64)
    except ValueError:
        return None
    return found if np.isfinite(found).all() else None


def _by_any_name(pictures: Sequence[str]) -> Mapping[str, str]:
    """Return pictures by their whole name, and by the last part where only one has it."""
    known: dict[str, str] = {}
    twice: set[str] = set()
    for picture in pictures:
        last = PurePosixPath(picture).name
        twice |= {last} if last in known else set()
        known[last] = picture
    return {last: picture for last, picture in known.items() if last not in twice} | {picture: picture for picture in pictures}


_COLUMNS = 2
_WRITE = "Write a line for each picture: its file name, a comma, its class."
