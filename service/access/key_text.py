"""The text of a key, ``oto_<id>_<secret>``, and what is kept of it.

The secret is 256 random bits, so nobody finds it by trying, and no slow hash is needed to hold up those who try: that is for passwords, of
which people choose few. A plain SHA-256 is kept. The id finds the row, by an index; only then is the digest of the secret compared, in a
time that does not depend on where it differs. The id is no secret: lists and logs show it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeyText:
    """A key in its two parts."""

    id: str
    secret: str

    def __str__(self) -> str:
        """Return the whole key, as callers send it."""
        return f"oto_{self.id}_{self.secret}"

    def __repr__(self) -> str:
        """Return the id alone: what is logged by mistake must not hold the secret."""
        return f"KeyText({self.id!r})"

    @property
    def secret_sha256(self) -> str:
        """The digest of the secret, in hexadecimal."""
        return hashlib.sha256(self.secret.encode()).hexdigest()

    def is_of(self, secret_sha256: str) -> bool:
        """Whether the digest is that of this secret, in constant time."""
        return hmac.compare_digest(self.secret_sha256, secret_sha256)


def new_key(key_id: str | None = None) -> KeyText:
    """Return a new random key; with an id, another secret for that id."""
    return KeyText(key_id or secrets.token_hex(_ID_BYTES), secrets.token_hex(_SECRET_BYTES))


def key_from_text(text: str) -> KeyText | None:
    """Return the key that a text is; None where it is none of this form."""
    found = _KEY.fullmatch(text)
    return None if found is None else KeyText(found[1], found[2])


def without_secrets(text: str) -> str:
    """Return a text in which of keys only their ids are left."""
    return _IN_TEXT.sub(r"oto_\1_...", text)


def holds_key(text: str) -> bool:
    """Whether there is a key, or most of one, in a text."""
    return _IN_TEXT.search(text) is not None


_ID_BYTES = 6
_SECRET_BYTES = 32
_KEY = re.compile(rf"oto_([0-9a-f]{{{2 * _ID_BYTES}}})_([0-9a-f]{{{2 * _SECRET_BYTES}}})")
_IN_TEXT = re.compile(rf"oto_([0-9a-f]{{{2 * _ID_BYTES}}})_[0-9a-f]+")
