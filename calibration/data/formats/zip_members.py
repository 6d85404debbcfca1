"""Reads members of a .zip that nobody vouches for: bounded while it runs, never written to disk under their own names."""

from __future__ import annotations

import struct
import zipfile
from pathlib import PurePosixPath
from typing import BinaryIO

from calibration.errors import InvalidCalibrationSetError

MAX_MEMBERS = 200_000
MAX_NAME_CHARACTERS = 1024
_DIRECTORY_BYTES = 64 * 2**20
_TAIL_BYTES = 2**16 + 22 + 76
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may ask for gigabytes for a few bytes of input
_ENCRYPTED = 1
_JUNK = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini", ".ipynb_checkpoints")


def members_of(archive: zipfile.ZipFile, name: str) -> list[zipfile.ZipInfo]:
    """Return the files of an archive in the order of their names, without what systems leave behind.

    Args:
        archive: Open.
        name: Of the file, for a message.

    Raises:
        InvalidCalibrationSetError: There are too many, or one is encrypted, packed by another method, or has a name that is too long.
    """
    found = []
    for entry in archive.infolist():
        parts = PurePosixPath(entry.filename).parts
        if entry.is_dir() or any(part in _JUNK or part.startswith("._") for part in parts):
            continue
        if len(entry.filename) > MAX_NAME_CHARACTERS:
            raise _refused(name, f"holds a name of {len(entry.filename)} characters")
        if entry.flag_bits & _ENCRYPTED:
            raise _refused(name, f"holds '{entry.filename}', which is encrypted")
        if entry.compress_type not in _METHODS:
            raise _refused(name, f"holds '{entry.filename}', which is packed by another method than deflate")
        found.append(entry)
    return sorted(found, key=lambda entry: entry.filename)


def check_directory(file: BinaryIO, name: str) -> None:
    """Refuse a table of contents that would fill the memory, before ``zipfile`` reads it whole.

    Args:
        file: A .zip; where it is left is not said.
        name: Of the file, for a message.

    Raises:
        InvalidCalibrationSetError: It has too many entries, or is too large.
    """
    begin = file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        return  # no table at all, which ``zipfile`` says
    entries, directory_bytes = struct.unpack_from("<HL", tail, at + 10)
    if tail[max(0, at - 20) : at][:4] == b"PK\x06\x07":  # ZIP64: the true numbers stand in a record of their own
        record = tail[max(0, at - 76) : at - 20]
        if record[:4] != b"PK\x06\x06" or struct.unpack_from("<Q", tail, at - 12)[0] != begin + at - 76:
            raise _refused(name, "has a table of contents that cannot be read")
        entries, directory_bytes = struct.unpack_from("<QQ", record, 32)
    if entries > MAX_MEMBERS or directory_bytes > _DIRECTORY_BYTES:
        raise InvalidCalibrationSetError(
            f"{name}: holds {entries} entries, at most {MAX_MEMBERS} expected", fix="Give fewer samples; a few hundred are usual."
        )


def read_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most_bytes: int, name: str) -> bytes:
    """Return what a member holds.

    Args:
        archive: Open.
        entry: The member.
        most_bytes: The largest that is read; what the archive says of the size is not believed.
        name: Of the file, for a message.

    Raises:
        InvalidCalibrationSetError: It is larger.
    """
    with archive.open(entry) as member:
        data = member.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise _refused(name, f"holds '{entry.filename}' of more than {most_bytes} bytes, the most that such a file may have")
    return data


def _refused(name: str, found: str) -> InvalidCalibrationSetError:
    return InvalidCalibrationSetError(f"{name}: {found}", fix="Pack the plain files again, as an ordinary .zip.")
