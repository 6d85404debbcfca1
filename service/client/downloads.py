"""Downloads of files that a server names by their SHA-256: streamed, gone on with where a connection breaks, checked, renamed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import httpx

from calibration.errors import InvalidConfigError, OptimizerError
from engine_builder.workspace.workspace import json_bytes
from service.client.answers import ServerUnavailableError, error_from_response, translated
from service.client.following import POLL_SECONDS, RECONNECT_SECONDS, Clock
from service.client.views import ArtifactView
from service.errors import UnsatisfiableRangeError

RESULT_NAME = "result.json"
_PARTIAL_CONTENT = 206


class DownloadError(OptimizerError):
    """What arrived is not what the server promised."""

    slug = "download-failed"
    title = "Download failed"


def download(http: httpx.Client, url: str, folder: Path, promised: ArtifactView, clock: Clock) -> Path:
    """Stream a file into ``<name>.part``, check the content, then rename, and return the path; nothing else is left behind.

    A connection that breaks once bytes have come is made again, and the server asked for those that are missing.

    Args:
        http: The connection.
        url: Of the file.
        folder: Where it goes; it is made where it is not there.
        promised: Its name, which may have folders of its own, and its SHA-256.
        clock: Time, for waiting between tries.

    Raises:
        DownloadError: The name leads out of the folder, or other bytes arrived.
        InvalidConfigError: The folder cannot be made.
        OptimizerError: The server's own error, or ``ServerUnavailableError``.
    """
    name, sha256 = promised.name, promised.sha256
    if "\\" in name or any(part in {"", ".", ".."} for part in name.split("/")):
        raise DownloadError(f"file name {name!r} from the server: expected one inside the folder", fix="Report it to who runs the server.")
    part = folder / (name + ".part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        found = "it is a file" if folder.exists() and not folder.is_dir() else exc.strerror
        raise InvalidConfigError(f"output folder {folder}: {found}", fix="Choose a folder that you may write to.") from exc
    try:
        with part.open("w+b") as stream:
            _receive(http, url, stream, clock)
            stream.seek(0)
            arrived = hashlib.file_digest(stream, "sha256").hexdigest()
        if arrived != sha256:
            raise DownloadError(f"{name}: content {arrived[:12]} arrived, {sha256[:12]} was promised", fix="Download it again.")
        return part.replace(folder / name)
    finally:
        part.unlink(missing_ok=True)


def write_result(result: Mapping[str, object], folder: Path) -> Path:
    """Write what a job found as the command ``optimize`` leaves it, ``result.json``, and return the path; the server has no such file.

    Args:
        result: Of the job.
        folder: Where it goes; it is made where it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / (RESULT_NAME + ".part")
    try:
        part.write_bytes(json_bytes(result))
        return part.replace(folder / RESULT_NAME)
    finally:
        part.unlink(missing_ok=True)


def _receive(http: httpx.Client, url: str, stream: BinaryIO, clock: Clock) -> None:
    """Write the file at an address into a stream; a server that goes away is waited for, up to a minute, and asked for the rest."""
    arrived_at = clock.monotonic()
    while True:
        had = stream.tell()
        try:
            with translated(), http.stream("GET", url, headers={"Range": f"bytes={had}-"} if had else {}) as response:
                if had and response.status_code == UnsatisfiableRangeError.status:
                    return  # there is no more: whether it is what was promised is looked at next
                if response.is_error:
                    response.read()
                    raise error_from_response(response)
                if response.status_code != _PARTIAL_CONTENT:  # a server that sends whole files only
                    stream.seek(0)
                    stream.truncate()
                for chunk in response.iter_bytes():
                    stream.write(chunk)
        except ServerUnavailableError:
            if stream.tell() > had:
                arrived_at = clock.monotonic()
            if stream.tell() == 0 or clock.monotonic() - arrived_at > RECONNECT_SECONDS:
                raise
            clock.sleep(POLL_SECONDS)
        else:
            return
