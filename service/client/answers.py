"""What a server's answer is taken for: an object, one of our errors, or nothing of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import httpx

from calibration.errors import InputError, OptimizerError, error_from_problem
from service.errors import ServiceError

SAME_VERSION = "Check the address given with --server, and that client and server have the same version."
_CLIENT_ERRORS = range(400, 500)
T = TypeVar("T")


class ServerUnavailableError(OptimizerError):
    """No server answers, or what answers is none of ours."""

    slug = "server-unavailable"
    title = "Server unavailable"


def understood(view: Callable[[Mapping[str, object]], T], answer: Mapping[str, object]) -> T:
    """Return what a view shows of an answer, which may be that of another program."""
    try:
        return view(answer)
    except TypeError as exc:
        raise ServerUnavailableError(f"server: its answer is none of ours: {exc}", fix=SAME_VERSION) from exc


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise ``ServerUnavailableError`` where a connection fails inside the block."""
    try:
        yield
    except httpx.TransportError as exc:
        raise ServerUnavailableError(
            f"server: no answer ({str(exc) or type(exc).__name__})",
            fix="Start it with `onnx-trt-optimizer serve`, or give its address with --server.",
        ) from exc


def error_from_response(response: httpx.Response) -> OptimizerError:
    """Return the error that an answer of 400 or more tells."""
    problem: object = None
    with contextlib.suppress(ValueError):
        problem = response.json()
    if isinstance(problem, dict) and "detail" in problem and "fix" in problem:
        return error_from_answer(problem, response.status_code)
    detail = f"server: answered {response.status_code} {response.reason_phrase} to {response.request.method} {response.request.url.path}"
    if response.status_code in _CLIENT_ERRORS:
        return ServiceError(detail, fix=SAME_VERSION)
    return ServerUnavailableError(detail, fix="Try again in a moment, or ask who runs the server.")


def error_from_answer(problem: Mapping[str, object], status: int) -> OptimizerError:
    """Return the error of a problem object.

    Args:
        problem: The object.
        status: Of the answer, where the object does not say it.
    """
    found = error_from_problem(problem)
    stated = problem.get("status", status)
    if type(found) is OptimizerError and isinstance(stated, int) and stated in _CLIENT_ERRORS:
        return InputError(found.detail, fix=found.fix)  # a newer server may know errors that we do not
    return found


def object_from_response(response: httpx.Response) -> dict[str, object]:
    """Return the JSON object of an answer.

    Raises:
        ServerUnavailableError: It is none.
    """
    try:
        value = response.json()
    except ValueError as exc:
        raise _not_ours(response) from exc
    if not isinstance(value, dict):
        raise _not_ours(response)
    return value


def _not_ours(response: httpx.Response) -> ServerUnavailableError:
    return ServerUnavailableError(
        f"server: {response.request.url} answered something that is not a JSON object", fix="Check the address given with --server."
    )
