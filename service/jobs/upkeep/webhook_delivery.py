"""Tells those who asked for it that a job has ended: a signed message, sent again for hours where nobody takes it.

The signature is that of Standard Webhooks (https://www.standardwebhooks.com): HMAC-SHA256 over ``id.timestamp.body``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from service import __version__
from service.errors import EncryptionKeyError, InvalidRequestError, RemovedError
from service.jobs.live.shown import job_json
from service.jobs.live.webhooks import DueWebhook
from service.jobs.records import Webhook
from service.jobs.resources import Deps
from service.jobs.upkeep.webhook_address import resolved

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

Post = Callable[[str, bytes, Mapping[str, str]], int]


def any_due(deps: Deps) -> bool:
    """Whether a message is due."""
    return bool(deps.store.webhooks.due(deps.clock().timestamp()))


def deliver_due(deps: Deps, post: Post) -> None:
    """Send every message that is due, once.

    Args:
        deps: The server's belongings.
        post: Sends a body with headers to a URL and returns the status of the answer; raises OSError where there is none.
    """
    for due in deps.store.webhooks.due(deps.clock().timestamp()):
        if deps.stopping.is_set():
            return
        try:
            _deliver(due, deps, post)
        except RemovedError:  # the job went while we looked
            deps.store.webhooks.forget(due.job_id)


def keep_encrypted(deps: Deps) -> None:
    """Encrypt what an earlier version or an earlier key left, and say whose key is lost."""
    try:
        moved = deps.store.webhooks.encrypt_plain()
        lost = deps.store.webhooks.renew()
    except EncryptionKeyError as error:
        logger.error("webhooks wait: %s. %s", error.detail, error.fix)
        return
    if moved:
        logger.info("webhooks: %s that an earlier version kept plain are encrypted now", moved)
    for job_id in lost:
        logger.error("job %s: its webhook was encrypted with a key that is lost; without that key nobody is told of its end", job_id)


def _deliver(due: DueWebhook, deps: Deps, post: Post) -> None:
    now = deps.clock()
    try:
        problem = _problem(deps.store.webhooks.read(due), due, deps, post)
    except InvalidRequestError as error:
        logger.warning("job %s: its webhook is given up: %s", due.job_id, error.detail)
        deps.store.webhooks.forget(due.job_id)
        return
    except EncryptionKeyError as error:  # the operator may put the key back
        problem = error.detail
    if problem is None:
        logger.info("job %s: its webhook was delivered", due.job_id)
        deps.store.webhooks.forget(due.job_id)
        return
    if due.attempts >= len(WAIT_SECONDS):
        logger.warning("job %s: its webhook is given up after %s attempts: %s", due.job_id, due.attempts + 1, problem)
        deps.store.webhooks.forget(due.job_id)
        return
    wait = WAIT_SECONDS[due.attempts]
    logger.info("job %s: its webhook was not taken (%s), next in %s s", due.job_id, problem, wait)
    deps.store.webhooks.put_off(due.job_id, now.timestamp() + wait)


def _problem(webhook: Webhook, due: DueWebhook, deps: Deps, post: Post) -> str | None:
    """Send a message, and return why it was not taken; None where it was."""
    body = _body(due, deps)
    timestamp = str(int(deps.clock().timestamp()))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"onnx-trt-optimizer/{__version__}",
        "webhook-id": due.job_id,
        "webhook-timestamp": timestamp,
    }
    if webhook.secret is not None:
        headers["webhook-signature"] = signature(webhook.secret, due.job_id, timestamp, body)
    try:
        status = post(webhook.url, body, headers)
    except OSError as exc:
        return f"{type(exc).__name__}: {exc}"
    return None if status in _TAKEN else f"the answer was {status}"


def signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a message.

    Args:
        secret: The key: what follows ``whsec_`` in Base64, else the text itself.
        message_id: The header ``webhook-id``.
        timestamp: The header ``webhook-timestamp``.
        body: The body.
    """
    key = base64.b64decode(secret.removeprefix(BASE64_SECRET)) if secret.startswith(BASE64_SECRET) else secret.encode()
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def poster(*, any_address: bool, transport: httpx.BaseTransport | None = None) -> Post:
    """Return what sends messages over the network.

    Args:
        any_address: Whether they may go to this machine or its network.
        transport: Replaces the network, for tests.
    """

    def post(url: str, body: bytes, headers: Mapping[str, str]) -> int:
        import httpx  # few servers send messages

        try:
            named = httpx.URL(url)
            port = named.port or (443 if named.scheme == "https" else 80)
            address = resolved(named.host, port, any_address=any_address)
            # To the very address that was looked at; the name is still what the certificate must be of.
            target, all_headers = named.copy_with(host=address), {**headers, "Host": named.netloc.decode()}
            with (
                httpx.Client(trust_env=False, follow_redirects=False, timeout=_TIMEOUT_SECONDS, transport=transport) as client,
                client.stream("POST", target, content=body, headers=all_headers, extensions={"sni_hostname": named.host}) as answer,
            ):
                return answer.status_code  # its body is nothing to us
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as exc:
            raise OSError(f"{type(exc).__name__}: {exc}") from exc

    return post


def _body(due: DueWebhook, deps: Deps) -> bytes:
    now = deps.clock()
    job = job_json(deps.store.get(due.job_id), now)
    result = job["result"] if isinstance(job["result"], Mapping) else {}
    told = {key: job[key] for key in ("id", "state", "created_at", "started_at", "finished_at", "target", "error", "links")}
    data = {**told, "outcome": result.get("outcome"), "speedup": result.get("speedup")}
    return json.dumps({"type": f"job.{job['state']}", "timestamp": job["finished_at"], "data": data}).encode()


BASE64_SECRET = "whsec_"
WAIT_SECONDS = (5, 30, 120, 600, 3600, 3 * 3600, 8 * 3600)  # after each attempt that failed
_TAKEN = range(200, 300)
_TIMEOUT_SECONDS = 10.0
