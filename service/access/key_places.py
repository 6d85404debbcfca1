"""Where the key lies that texts in the database are encrypted with: with the files of all processes, or in a setting."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from calibration.errors import InvalidConfigError
from service.access.encryption import KeyPlace
from service.errors import EncryptionKeyError, NotFoundError
from service.object_store.objects import Objects
from service.settings import PREFIX, Settings

logger = logging.getLogger(__name__)

KEY_NAME = "encryption.key"  # of the file or the object
SETTING = f"{PREFIX}ENCRYPTION_KEYS"


class KeyFile:
    """Keys in a file that this user alone may read."""

    def __init__(self, path: Path) -> None:
        """Use a file in a folder that is there; the file need not be."""
        self._path = path
        self._is_told = False

    @property
    def where(self) -> str:
        """The path."""
        return str(self._path)

    def read(self) -> str | None:
        """Return what is in the file."""
        try:
            with self._path.open() as file:
                self._check_mode(os.fstat(file.fileno()).st_mode)
                return file.read(_MOST_CHARACTERS)
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as exc:
            problem = exc.strerror if isinstance(exc, OSError) else "it is no text"
            raise EncryptionKeyError(
                f"encryption key in {self._path}: it cannot be read: {problem}",
                fix=f"Ask the operator to run all servers as one user, to whom the file belongs, or to set {SETTING}.",
            ) from exc

    def write_first(self, text: str) -> None:
        """Make the file, whole or not at all."""
        with self._written(text) as scratch:
            try:
                os.link(scratch, self._path)
            except FileExistsError:
                return
            except OSError:  # a file system without links
                if not self._path.exists():
                    scratch.replace(self._path)

    def replace(self, text: str) -> None:
        """Put another file in its place."""
        with self._written(text) as scratch:
            scratch.replace(self._path)

    @contextlib.contextmanager
    def _written(self, text: str) -> Iterator[Path]:
        scratch = self._path.with_name(f".{KEY_NAME}-{secrets.token_hex(8)}")
        try:
            with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            yield scratch
        except OSError as exc:
            raise EncryptionKeyError(
                f"encryption key in {self._path}: it cannot be written: {exc.strerror}", fix="Ask the operator to look at the folder."
            ) from exc
        finally:
            scratch.unlink(missing_ok=True)

    def _check_mode(self, mode: int) -> None:
        if mode & (stat.S_IRWXG | stat.S_IRWXO) and not self._is_told:
            self._is_told = True
            logger.warning("encryption key in %s: other users may read it; `chmod 600` takes that from them", self._path)


class KeyObject:
    """Keys in an object beside the files of all processes, for whoever has the credentials of the store."""

    def __init__(self, objects: Objects, address: str) -> None:
        """Use the objects of a deployment; ``address`` names them in words."""
        self._objects = objects
        self._address = address.rstrip("/")

    @property
    def where(self) -> str:
        """The object's address."""
        return f"{self._address}/{KEY_NAME}"

    def read(self) -> str | None:
        """Return what is in the object."""
        try:
            return self._objects.read(KEY_NAME).decode("ascii", "replace")
        except NotFoundError:
            return None

    def write_first(self, text: str) -> None:
        """Write the object, unless it is there; callers take turns."""
        if self.read() is None:
            self.replace(text)

    def replace(self, text: str) -> None:
        """Write the object anew."""
        self._objects.write(KEY_NAME, text.encode())


class KeySetting:
    """Keys that the operator has written into a setting of every process."""

    where = SETTING

    def __init__(self, text: str) -> None:
        """Use the value of the setting."""
        self._text = text

    def read(self) -> str:
        """Return the setting."""
        return self._text

    def write_first(self, text: str) -> None:
        """Leave the setting as it is."""

    def replace(self, text: str) -> None:
        """Say that this is the operator's to do."""
        raise InvalidConfigError(
            f"encryption key: it is the setting {SETTING}, which this program does not write",
            fix="Make one with --print, put it and a comma before the one that is there, restart all servers, and a minute later take the "
            "old one out.",
        )


def key_place(settings: Settings, objects: Objects | None) -> KeyPlace:
    """Return where the settings want the keys.

    Args:
        settings: Of this process.
        objects: Those of the deployment, where its files are in an object store.
    """
    if settings.encryption_keys is not None:
        return KeySetting(settings.encryption_keys)
    if objects is not None and settings.object_store is not None:
        return KeyObject(objects, settings.object_store)
    return KeyFile(settings.files_dir / KEY_NAME)


_MOST_CHARACTERS = 10_000
