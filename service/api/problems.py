"""Every error as a problem object, in plain words of bounded length that name no folder of the server."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from calibration.errors import OptimizerError
from service.database.storage_errors import storage_error
from service.errors import (
    BadRequestError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    QuotaExceededError,
    ServiceError,
    StorageError,
    UnauthorizedError,
    UnsatisfiableRangeError,
)

logger = logging.getLogger(__name__)


def add_problem_handlers(app: FastAPI, hidden: Sequence[str]) -> None:
    """Let the application answer every error with a problem object.

    Args:
        app: The application.
        hidden: Folders that no answer may name; see ``calibration.plain_text``.
    """

    def answer(error: OptimizerError, headers: Mapping[str, str] | None = None) -> JSONResponse:
        problem = error.problem(hidden)
        return JSONResponse(problem, status_code=error.status, media_type="application/problem+json", headers=dict(headers or {}))

    async def on_our_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, OptimizerError)
        if error.status == OptimizerError.status:
            logger.error("%s %s: %s", request.method, request.url.path, error, exc_info=error)
        elif error.status > OptimizerError.status:  # nobody's fault, but the operator should know
            logger.warning("%s %s: %s", request.method, request.url.path, error)
        if isinstance(error, QuotaExceededError):
            return answer(error, {"Retry-After": str(error.retry_seconds)})
        if isinstance(error, UnsatisfiableRangeError):
            return answer(error, {"Content-Range": f"bytes */{error.size_bytes}"})
        return answer(error, _HEADERS.get(error.status))

    async def on_os_error(request: Request, error: Exception) -> JSONResponse:
        problem = storage_error(error)
        if problem is None:
            raise error
        return await on_our_error(request, problem)

    async def on_validation_error(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        wrong = [(".".join(str(part) for part in item["loc"]), item["msg"], item.get("input")) for item in error.errors()]
        detail = "; ".join(f"{where}: found {found!r}: {message}" for where, message, found in wrong)
        return answer(InvalidRequestError(detail, fix="See /docs for what this route takes."))

    async def on_http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        if error.status_code == MethodNotAllowedError.status:
            headers |= _allowed(app, request.url.path)
        return answer(_translated(request, error), headers)

    async def on_unexpected_error(_: Request, __: Exception) -> JSONResponse:
        # The web framework logs the error itself, with its trace, after this answer; the web server then closes the connection.
        detail = "the server met an unexpected error, which it has logged"
        return answer(OptimizerError(detail, fix="Try again; if it stays, report it."), {"Connection": "close"})

    app.add_exception_handler(OptimizerError, on_our_error)
    app.add_exception_handler(OSError, on_os_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(Exception, on_unexpected_error)


def _allowed(app: FastAPI, path: str) -> dict[str, str]:
    """Return the header with the methods that the path takes, of all its routes; the web framework names those of one."""
    templates = {re.sub(r"\\{[^}]*\\}", "[^/]+", re.escape(template)): about for template, about in app.openapi()["paths"].items()}
    found = {method.upper() for pattern, about in templates.items() if re.fullmatch(pattern, path) for method in about}
    found |= {"HEAD"} if "GET" in found else set()
    return {"Allow": ", ".join(sorted(found))} if found else {}


def _translated(request: Request, error: HTTPException) -> ServiceError:
    if error.status_code == NotFoundError.status:
        return NotFoundError(f"path {request.url.path!r}: there is nothing here", fix="See /docs for the routes.")
    if error.status_code == MethodNotAllowedError.status:
        return MethodNotAllowedError(f"{request.method} {request.url.path}: this path does not take it", fix="See /docs for the routes.")
    return BadRequestError(str(error.detail), fix="See /docs for what this route takes.")


_HEADERS: Mapping[int, Mapping[str, str]] = {
    UnauthorizedError.status: {"WWW-Authenticate": "Bearer"},
    StorageError.status: {"Retry-After": "5"},  # seconds
}
