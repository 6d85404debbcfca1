"""Reads the webhook of a request to run a job."""

from __future__ import annotations

import base64
import json

from calibration.codec import object_once
from service.errors import InvalidRequestError
from service.jobs.records import Webhook
from service.jobs.upkeep.webhook_address import MAX_URL_CHARACTERS, check_url
from service.jobs.upkeep.webhook_delivery import BASE64_SECRET

_MAX_CHARACTERS = 4096
_MAX_SECRET_CHARACTERS = 256
_KEYS = {"url", "secret"}


def schema() -> dict[str, object]:
    """Return the JSON Schema of a webhook; where the address leads is not in it."""
    text, prefix = "[ -~]", BASE64_SECRET
    others = [f"{prefix[:place]}([^{letter}\\x00-\\x1f\\x7f-\\uffff]{text}*)?" for place, letter in enumerate(prefix) if place]
    plain = "|".join([f"[^{prefix[0]}\\x00-\\x1f\\x7f-\\uffff]{text}*", *others])
    return {
        "type": "object",
        "description": "Where to tell that the job has ended, in a message that is signed where there is a secret.",
        "properties": {
            "url": {"type": "string", "maxLength": MAX_URL_CHARACTERS, "pattern": _URL},
            "secret": {
                "type": "string",
                "minLength": 1,
                "maxLength": _MAX_SECRET_CHARACTERS,
                "pattern": f"^({prefix}([A-Za-z0-9+/]{{4}})+|{plain})$",
            },
        },
        "required": ["url"],
        "additionalProperties": False,
    }


def webhook_from_text(text: str | None, *, any_address: bool) -> Webhook | None:
    """Return the webhook that a request asks for, in JSON: ``url`` and perhaps ``secret``.

    Args:
        text: The field of the request, None where there is none.
        any_address: Whether it may lead to this machine or its network.

    Raises:
        InvalidRequestError: It is none that can be served.
    """
    if text is None:
        return None
    fix = 'Send {"url": "https://...", "secret": "..."}; the secret may be left out.'
    if len(text) > _MAX_CHARACTERS:
        raise InvalidRequestError(f"webhook: it is longer than {_MAX_CHARACTERS} characters", fix=fix)
    try:
        value = json.loads(text, object_pairs_hook=object_once)
    except (ValueError, RecursionError) as exc:
        raise InvalidRequestError(f"webhook: it is not JSON ({exc})", fix=fix) from exc
    if not isinstance(value, dict) or not isinstance(value.get("url"), str) or not set(value) <= _KEYS:
        raise InvalidRequestError("webhook: expected an object with `url`, and perhaps `secret`", fix=fix)
    secret = value.get("secret")
    if secret is not None and not _is_secret(secret):
        raise InvalidRequestError(
            f"webhook secret: expected 1 to {_MAX_SECRET_CHARACTERS} printable characters; what follows {BASE64_SECRET} is Base64", fix=fix
        )
    check_url(value["url"], any_address=any_address)
    return Webhook(value["url"], secret)


def _is_secret(secret: object) -> bool:
    if not isinstance(secret, str) or not 0 < len(secret) <= _MAX_SECRET_CHARACTERS or not secret.isprintable():
        return False
    if not secret.startswith(BASE64_SECRET):
        return True
    try:
        return bool(base64.b64decode(secret.removeprefix(BASE64_SECRET), validate=True))
    except ValueError:
        return False


_URL = "^https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[1-9][0-9]{0,3})?([/?#][!-~]*)?$"  # as people write it; others are taken too
