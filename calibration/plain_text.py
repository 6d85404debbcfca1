"""Makes any text fit to be shown: short, of characters that a reader sees, without folders of this machine and without passwords.

Texts of errors hold what users sent: a name of 20 MB, an escape sequence that a terminal obeys, a line end that forges a line of a log. And
what libraries say: an address with the password of a database, or one that an object store has signed.
This is the one place where that ends: every error cleans its own words, and whoever hands words to others names the folders to hide.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

MAX_CHARACTERS = 2000


def plain_text(text: str, *, hidden: Sequence[str] = ()) -> str:
    """Return the text in at most ``MAX_CHARACTERS`` characters that can be seen; of a longer one the start and the end.

    Args:
        text: Any.
        hidden: Absolute paths of folders, longest first: what lies in them is named relative to them.
    """
    if len(text) > _LONGEST_READ:  # the rest would be cut anyway
        text = f"{text[:MAX_CHARACTERS]}{_cut(len(text) - 2 * MAX_CHARACTERS)}{text[-MAX_CHARACTERS:]}"
    if "://" in text:
        text = _SIGNED.sub(r"\1...", _PASSWORD.sub(r"\1...", text))
    for folder in hidden:
        if folder in text:  # else nothing is to be escaped and compiled
            text = re.sub(rf"(?<![\w./-]){re.escape(folder)}(?:/+|(?![\w.-]))", "", text)
    if not text.isprintable():
        text = "".join(character if character.isprintable() else _visible(character) for character in text)
    if len(text) <= MAX_CHARACTERS:
        return text
    note = _cut(len(text) - MAX_CHARACTERS)
    start = (MAX_CHARACTERS - len(note)) * 2 // 3
    return text[:start] + note + text[len(text) - (MAX_CHARACTERS - len(note) - start) :]


def folders_to_hide(*folders: Path) -> tuple[str, ...]:
    """Return what ``plain_text`` takes: these folders, those of temporary files, of this program and of Python; longest first."""
    own = (Path(__file__).resolve().parents[1], Path(tempfile.gettempdir()), Path(sys.prefix), Path(sys.base_prefix))
    both = {str(path) for folder in (*folders, *own) for path in (folder.absolute(), folder.resolve())}
    return tuple(sorted(both - {"/"}, key=lambda path: (-len(path), path)))


def _cut(count: int) -> str:
    return f" ... ({count} characters cut) ... "


def _visible(character: str) -> str:
    return " " if character.isspace() else character.encode("unicode_escape").decode()


# RFC 3986 allows no @ in a password, but people write it so: the last @ before the path ends it.
_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]{0,30}://[^\s/?#:@'\"]*:)[^\s/?#'\"]+(?=@)", re.IGNORECASE)
# Whoever has one of these has what it opens: parameters of addresses that S3 and others sign, and what people call their secrets in them.
_SIGNED = re.compile(
    r"([?&](?:X-Amz-(?:Signature|Credential|Security-Token)|Signature|AWSAccessKeyId|sig|[a-z_-]{0,30}(?:token|secret|password|api_?key))=)[^&#\s'\"]+",
    re.IGNORECASE,
)
_LONGEST_READ = 8 * MAX_CHARACTERS
