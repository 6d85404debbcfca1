"""``/``, ``/docs`` and ``/web/...``: pages that load nothing from elsewhere, so that they work without internet.

The pages themselves need no key, since whoever has none could not ask for one otherwise. What they show comes from the API, which does.
The files lie in ``assets``; those of Swagger UI, which draws ``/docs``, come with the package ``fastapi-offline``.

Policies: ``_PAGE_POLICY`` lets a page run scripts and styles of this server only, none that stand in the page. Swagger UI writes styles
into its page and its pictures are ``data:`` addresses, so ``_DOCS_POLICY`` allows these. A report holds names out of a user's model: it is
drawn in a frame of its own origin (``_FRAME_POLICY``) that can neither reach the page around it nor ask anybody anything.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from service.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that the pages load.

    Attributes:
        content: Its bytes.
        media_type: What a browser takes it for.
        policy: Its Content-Security-Policy.
    """

    content: bytes
    media_type: str
    policy: str

    @property
    def etag(self) -> str:
        """Changes with the content."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'


def web_router() -> APIRouter:
    """Return the routes of the pages, which are no part of the API's own description."""
    router = APIRouter(include_in_schema=False)
    assets = read_assets()

    @router.get("/")
    async def page(request: Request) -> Response:
        return _answer(request, assets["index.html"])

    @router.get("/docs")
    async def docs(request: Request) -> Response:
        return _answer(request, assets["docs.html"])

    @router.get("/favicon.ico")
    async def icon(request: Request) -> Response:
        return _answer(request, assets["icon.svg"])

    @router.get("/web/{name:path}")
    async def asset(request: Request, name: str) -> Response:
        if name not in assets:
            raise NotFoundError(f"path {request.url.path!r}: there is nothing here", fix="Open / for the page.")
        return _answer(request, assets[name])

    return router


def description_router(describe: Callable[[], Mapping[str, object]]) -> APIRouter:
    """Return the route of the API's own description, which whoever includes it guards as the API itself.

    Args:
        describe: Returns the description.
    """
    router = APIRouter(include_in_schema=False)

    @router.get("/openapi.json")
    def openapi() -> JSONResponse:
        return JSONResponse(describe())

    return router


def read_assets() -> Mapping[str, Asset]:
    """Return every file of the pages by its name under ``/web/``."""
    own = {path.name: path.read_bytes() for path in files("service.web").joinpath("assets").iterdir()}
    return {name: _asset(name, content) for name, content in {**own, **_swagger_files()}.items()}


def _swagger_files() -> Mapping[str, bytes]:
    """Return Swagger UI's files. The package is located and not imported: its code is not needed."""
    found = importlib.util.find_spec("fastapi_offline")
    assert found is not None, "fastapi-offline is a dependency"
    assert found.origin is not None, "fastapi-offline is a package of files"
    folder = Path(found.origin).parent / "static"
    return {name: (folder / name).read_bytes() for name in ("swagger-ui-bundle.js", "swagger-ui.css")}


def _asset(name: str, content: bytes) -> Asset:
    return Asset(content, _MEDIA_TYPES[Path(name).suffix], _POLICIES.get(name, _PAGE_POLICY))


def _answer(request: Request, asset: Asset) -> Response:
    headers = {
        "Content-Security-Policy": asset.policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",  # asked for again each time, and not sent again if it is the same: pages and scripts fit together
        "ETag": asset.etag,
    }
    if request.headers.get("if-none-match") == asset.etag:
        return Response(status_code=304, headers=headers)
    return Response(asset.content, media_type=asset.media_type, headers=headers)


_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_NOBODY_ELSE = "default-src 'none'; connect-src 'self'; script-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
_PAGE_POLICY = f"{_NOBODY_ELSE}; style-src 'self'; img-src 'self'; worker-src 'self'; frame-src 'self'"
_DOCS_POLICY = f"{_NOBODY_ELSE}; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
_FRAME_POLICY = (
    "sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "frame-ancestors 'self'"
)
_POLICIES = {"docs.html": _DOCS_POLICY, "report-frame.html": _FRAME_POLICY}
