"""Writes a file so that a reader sees all of it or none."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write to a hidden file beside ``path`` and rename that; on failure it is gone again and ``path`` is as it was.

    Several may write at once, also on machines that share the folder and have the same process ids: one of them is last.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
