"""What a download answers to who has a part or the whole of it already (RFC 9110, 13 and 14): the whole, a part, or nothing.

A file never changes under its ETag, its SHA-256. One range of bytes is answered; of several ranges, or of a header that is none, the whole
file, as the standard allows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from service.errors import UnsatisfiableRangeError

_RANGE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.ASCII | re.IGNORECASE)


def is_had(headers: Mapping[str, str], etag: str) -> bool:
    """Return whether the caller says that it has the file of this ETag (``If-None-Match``)."""
    named = [one.strip().removeprefix("W/") for one in headers.get("if-none-match", "").split(",")]
    return etag in named or named == ["*"]


def wanted_part(headers: Mapping[str, str], etag: str, size_bytes: int) -> range | None:
    """Return the bytes of a file that the caller asks for; None: all of it.

    Args:
        headers: Of the request, by their names in small letters: ``range``, and ``if-range``, with which the part is only wanted of the
            file of that ETag.
        etag: Of the file, in its quotes.
        size_bytes: Of the file.

    Raises:
        UnsatisfiableRangeError: The file has no such bytes.
    """
    found = _RANGE.fullmatch(headers.get("range", "").strip())
    if found is None or headers.get("if-range", etag).strip() != etag:
        return None
    first, last = found[1], found[2]
    if not first and not last:
        return None
    if not first:  # the last bytes, so many
        part = range(max(size_bytes - int(last), 0), size_bytes)
    elif last and int(last) < int(first):
        return None  # the standard calls that no range
    else:
        part = range(int(first), min(int(last) + 1, size_bytes) if last else size_bytes)
    if not part:
        raise UnsatisfiableRangeError(
            f"range: {headers['range'].strip()!r} found, bytes of a file of {size_bytes} expected",
            fix="Ask for bytes that the file has; a download of which all bytes are there is complete.",
            size_bytes=size_bytes,
        )
    return part
