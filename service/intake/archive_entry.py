"""What both kinds of archives are read into, and what a name in one may be."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from calibration.errors import InvalidModelError
from service.errors import TooLargeError

MAX_ENTRIES = 20_000  # folders too
MAX_NAME_BYTES = 1024
MAX_PART_BYTES = 255
MAX_DEPTH = 16  # folders in folders
_NO_TEXT = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # control and direction characters, halves of surrogate pairs, line ends


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """A plain file in an archive. ``pieces`` has to be read to its end before the next entry is asked for.

    Attributes:
        name: As the archive has it; ``safe_name`` checks it.
        size_bytes: What the archive says; ``pieces`` holds it to that.
        pieces: The content, each piece at most a MiB.
    """

    name: str
    size_bytes: int
    pieces: Iterator[bytes]


def safe_name(name: str) -> PurePosixPath:
    """Return where a file goes, relative to the folder that the archive is unpacked into.

    Raises:
        InvalidModelError: The name leads out of it, is too long or too deep, or holds characters that are no text.
    """
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or ":" in path.parts[0]:
        raise unsafe(name, "the name leads out of the archive")
    if any(unicodedata.category(character) in _NO_TEXT for character in name):
        raise unsafe(name, "the name holds control characters or is no text")
    if len(path.parts) > MAX_DEPTH + 1:
        raise unsafe(name, f"it lies {len(path.parts) - 1} folders deep, expected at most {MAX_DEPTH}")
    size = len(name.encode())
    if size > MAX_NAME_BYTES or max(len(part.encode()) for part in path.parts) > MAX_PART_BYTES:
        raise unsafe(name, f"the name takes {size} bytes, expected at most {MAX_NAME_BYTES}, and {MAX_PART_BYTES} between slashes")
    return path


def unsafe(name: str, why: str) -> InvalidModelError:
    """Return the error about an entry; of a long name it shows the start."""
    shown = name if len(name) <= _SHOWN_CHARACTERS else name[:_SHOWN_CHARACTERS] + "..."
    return InvalidModelError(f"archive entry {shown!r}: {why}", fix="Pack only plain files, with short and relative names.")


def too_many() -> TooLargeError:
    """Return the error about an archive with too many entries."""
    return TooLargeError(f"archive: it has more than {MAX_ENTRIES} entries", fix="Save the external data as one file and pack again.")


_SHOWN_CHARACTERS = 200
