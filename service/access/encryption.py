"""Keeps texts from whoever has the database alone: they are encrypted with a key of the server that lies elsewhere.

Fernet (https://github.com/fernet/spec) is AES-128 in CBC mode and HMAC-SHA256 over all of it. Of several keys the first encrypts and every
one decrypts, so that a key can be replaced while others work with it. A text is encrypted together with what it is for: one that is moved
to another row is refused there. Keys are read anew each time: a change holds at once, in every process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from service.errors import EncryptionKeyError
from service.settings import split_keys

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet


class KeyPlace(Protocol):
    """Where the keys lie, one a line, of which the first is the newest. Safe to share between threads and processes."""

    @property
    def where(self) -> str:
        """The place, in words."""

    def read(self) -> str | None:
        """Return the keys; None where there are none yet.

        Raises:
            StorageError: They cannot be read now.
        """

    def write_first(self, text: str) -> None:
        """Write keys where there are none; if somebody else was faster, theirs stay.

        Raises:
            StorageError: They cannot be written now.
        """

    def replace(self, text: str) -> None:
        """Write other keys in the place of these, all at once.

        Raises:
            InvalidConfigError: They are the operator's to write.
            StorageError: They cannot be written now.
        """


class Encryption:
    """Encrypts and decrypts. Safe to share between threads and processes."""

    def __init__(self, place: KeyPlace) -> None:
        """Use the keys that lie there."""
        self._place = place

    def has_key(self) -> bool:
        """Whether there are keys.

        Raises:
            StorageError: Nobody can tell now.
        """
        return self._place.read() is not None

    def make_key(self) -> None:
        """Make the first key, where there is none; one caller of all processes at a time.

        Raises:
            StorageError: It cannot be written now.
        """
        self._place.write_first(new_key())

    def check_key(self) -> None:
        """Accept the keys, as far as they say by themselves.

        Raises:
            EncryptionKeyError: They are none.
            StorageError: They cannot be read now.
        """
        self._keys()

    def encrypt(self, text: str, purpose: str) -> str:
        """Return a text that only who has the key can read.

        Args:
            text: What to encrypt.
            purpose: What it is for; whoever decrypts it has to know that.

        Raises:
            EncryptionKeyError: There is no key.
            StorageError: It cannot be read now.
        """
        return self._fernet(self._keys()).encrypt(json.dumps([purpose, text]).encode()).decode()

    def decrypt(self, token: str, purpose: str) -> str:
        """Return the text that was encrypted for this purpose.

        Raises:
            EncryptionKeyError: Not with one of these keys, or not for that.
            StorageError: The keys cannot be read now.
        """
        from cryptography.fernet import InvalidToken

        try:
            found, text = json.loads(self._fernet(self._keys()).decrypt(token.encode()))
        except InvalidToken as exc:
            raise EncryptionKeyError(
                f"{purpose}: it was encrypted with another key than is in {self._place.where} now",
                fix=f"Ask the operator to put the earlier key back, from a backup, as a further line of {self._place.where}.",
            ) from exc
        if found != purpose:
            raise EncryptionKeyError(f"{purpose}: what stands there is of something else ({found})", fix="Ask the operator who changed it.")
        return str(text)

    def renewed(self, token: str) -> str | None:
        """Return the same text, encrypted with the first key; None where it is already.

        Raises:
            EncryptionKeyError: It was encrypted with none of these keys.
            StorageError: The keys cannot be read now.
        """
        from cryptography.fernet import InvalidToken

        keys = self._keys()
        try:
            self._fernet(keys[:1]).decrypt(token.encode())
        except InvalidToken:
            try:
                return self._fernet(keys).rotate(token.encode()).decode()
            except InvalidToken as exc:
                raise EncryptionKeyError(
                    f"it was encrypted with another key than is in {self._place.where} now", fix="Put the earlier key back."
                ) from exc
        return None

    def replace_key(self, renew: Callable[[], object]) -> str:
        """Put a new key before the others, and drop those before the last one; return where they lie.

        The last one stays, since another process may be writing with it now. One caller of all processes at a time.

        Args:
            renew: Called in between: encrypts anew all that is kept.

        Raises:
            InvalidConfigError: The operator writes the keys.
            StorageError: They cannot be read or written now.
        """
        old = [] if self._place.read() is None else list(self._keys())
        keys = [new_key(), *old]
        if old:
            self._place.replace("\n".join(keys))
            renew()
            self._place.replace("\n".join(keys[:2]))
        else:
            self._place.write_first(keys[0])
        return self._place.where

    def _keys(self) -> Sequence[str]:
        text = self._place.read()
        if text is None:
            raise EncryptionKeyError(
                f"encryption key in {self._place.where}: there is none",
                fix="Ask the operator to put it back from a backup. If it is lost, the next webhook makes a new one.",
            )
        keys = split_keys(text)
        if not keys or not all(map(is_key, keys)):
            raise EncryptionKeyError(
                f"encryption key in {self._place.where}: expected keys of {KEY_CHARACTERS} characters, found something else",
                fix="Ask the operator to put it back from a backup. If it is lost, remove it: a new one is made.",
            )
        return keys

    def _fernet(self, keys: Sequence[str]) -> MultiFernet:
        from cryptography.fernet import Fernet, MultiFernet  # most servers never encrypt anything

        return MultiFernet([Fernet(key) for key in keys])


def new_key() -> str:
    """Return a new random key."""
    from cryptography.fernet import Fernet

    return Fernet.generate_key().decode()


def is_key(text: str) -> bool:
    """Whether a text is a key: 32 bytes in the Base64 of URLs."""
    from cryptography.fernet import Fernet

    try:
        Fernet(text)
    except ValueError:
        return False
    return True


KEY_CHARACTERS = 44
