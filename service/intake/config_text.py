"""Reads the JSON text of a configuration, and refuses what JSON's reader would take in silence or fail on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from calibration.errors import InvalidConfigError


def submitted_value(text: str) -> object:
    """Return what the configuration of a request holds; an empty text is an empty object.

    Raises:
        InvalidConfigError: See ``value_from_config_text``.
    """
    return value_from_config_text(text, "config", "Send a JSON object; every key is optional.") if text.strip() else {}


def value_from_config_text(text: str, name: str, fix: str) -> object:
    """Return what the text holds.

    Args:
        text: JSON.
        name: Where it is from, for the message.
        fix: What to do where it is not JSON.

    Raises:
        InvalidConfigError: It is not JSON, is nested too deeply, or has a key twice in one object.
    """
    try:
        value: object = json.loads(text, object_pairs_hook=lambda pairs: _object(pairs, name))
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair has no place in an answer
    except RecursionError as exc:
        raise InvalidConfigError(f"{name}: it is not JSON that can be read: it is nested too deeply", fix=fix) from exc
    except ValueError as exc:
        raise InvalidConfigError(f"{name}: it is not JSON ({exc})", fix=fix) from exc
    return value


def _object(pairs: Sequence[tuple[str, object]], name: str) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise InvalidConfigError(f"{name}: found the key {twice!r} twice, expected it once", fix="Keep one of them.")
    return found
