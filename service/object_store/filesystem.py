"""Opens the object store that a setting names, through fsspec; the one place that imports it, and only where the setting is there."""

from __future__ import annotations

from typing import Protocol

from calibration.errors import InvalidConfigError

INSTALL_FIX = "Install the extra: pip install 'onnx-trt-optimizer[s3]'."


class FileSystem(Protocol):
    """What is used of an fsspec file system; paths are ``bucket/key``."""

    def put_file(self, lpath: str, rpath: str) -> None:
        """Store a local file, all at once."""

    def get_file(self, rpath: str, lpath: str) -> None:
        """Write an object to a local file."""

    def pipe_file(self, path: str, value: bytes) -> object:
        """Store bytes, all at once."""

    def cat_file(self, path: str) -> bytes:
        """Return the bytes of an object."""

    def rm_file(self, path: str) -> None:
        """Remove an object; one that is not there is fine."""

    def url(self, path: str, expires: int, **parameters: str) -> str:
        """Return an address under which whoever has it may read an object for so many seconds."""


def open_filesystem(endpoint: str | None = None) -> FileSystem:
    """Return the file system of S3, with the credentials, region and endpoint of the usual variables (``AWS_...``).

    Args:
        endpoint: Another endpoint than these name.

    Raises:
        InvalidConfigError: The packages for it are not installed.
    """
    try:
        import s3fs
    except ImportError as exc:
        raise InvalidConfigError("object store: found no package s3fs, which speaks to it", fix=INSTALL_FIX) from exc
    filesystem = s3fs.S3FileSystem(
        endpoint_url=endpoint,
        skip_instance_cache=True,
        use_listings_cache=False,
        config_kwargs={
            "signature_version": "s3v4",
            "connect_timeout": _CONNECT_SECONDS,
            "read_timeout": _READ_SECONDS,
            "retries": {"max_attempts": 0},  # tried again by ``Objects``, which gives up in time for the caller
        },
    )
    filesystem.retries = 1
    found: FileSystem = filesystem
    return found


_CONNECT_SECONDS = 3
_READ_SECONDS = 10
