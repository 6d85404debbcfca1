"""Reads request bodies: files stream into the artifact store under a size limit, in constant memory; short fields stay in memory."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qsl

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from calibration.codec import object_once
from service.errors import BadRequestError, InvalidRequestError, TooLargeError, UnsupportedMediaError
from service.jobs.artifacts import StoreWriter
from service.jobs.receiving.body import hand_over, pieces_of
from service.jobs.records import StoredFile

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks  # exists for type checkers only

MAX_TEXT_BYTES = 2**20  # of one text field, or of a whole JSON body
FILE_FIELD = "file"
OpenWriter = Callable[[int], StoreWriter]


@dataclass(frozen=True, slots=True)
class Form:
    """A parsed body: files, already in the store, and texts, each by field name."""

    files: dict[str, StoredFile] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


async def receive_file(request: Request, open_writer: OpenWriter, max_bytes: int) -> StoredFile:
    """Store the file that is the body itself, or the one ``file`` field of a multipart body.

    Args:
        request: The request.
        open_writer: Begins a file of as many bytes as are expected.
        max_bytes: The largest file.

    Raises:
        TooLargeError: The file is larger than ``max_bytes``.
        BadRequestError: The body ends early or is not what its headers say, such as their Content-Digest (of a body that is the file).
        InsufficientStorageError: The disk has no room for it.
        QuotaExceededError: Its tenant may not store so much.
        InvalidRequestError: The form has other fields, or no file.
    """
    kind, _ = parse_options_header(request.headers.get("content-type"))
    if kind == b"multipart/form-data":
        form = await receive_form(request, open_writer, max_bytes, files=(FILE_FIELD,), texts=())
        if FILE_FIELD not in form.files:
            raise InvalidRequestError(f"form: expected one field {FILE_FIELD!r}, found none", fix=f"Send the file as field {FILE_FIELD!r}.")
        return form.files[FILE_FIELD]
    _check_length(request, max_bytes)
    wanted = _stated_sha256(request)
    with await run_in_threadpool(open_writer, _stated_length(request)) as writer:
        size_bytes = 0

        def take(chunk: bytes) -> None:
            nonlocal size_bytes
            size_bytes += len(chunk)
            if size_bytes > max_bytes:
                raise _too_large("file", max_bytes)
            writer.write(chunk)

        await hand_over(request, take)
        if wanted is not None and writer.sha256 != wanted:
            raise BadRequestError(
                f"Content-Digest: the bytes that arrived have the SHA-256 {writer.sha256}, {wanted} was stated", fix="Send the file again."
            )
        return await run_in_threadpool(writer.commit)


async def receive_form(
    request: Request, open_writer: OpenWriter, max_bytes: int, *, files: Collection[str], texts: Collection[str]
) -> Form:
    """Parse a multipart, URL-encoded or JSON body.

    Args:
        request: The request.
        open_writer: Begins a file of as many bytes as are expected.
        max_bytes: The largest file.
        files: Fields that may be files (multipart only).
        texts: Fields that may be texts. In a JSON body a value that is no string is passed on as its JSON text.

    Raises:
        TooLargeError: A file or a text is too large.
        BadRequestError: The body ends early or is not what its headers say.
        InvalidRequestError: A field is unknown or given twice.
        UnsupportedMediaError: The body is of another type.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind == b"multipart/form-data":
        _check_length(request, max_bytes * len(files) + MAX_TEXT_BYTES * (len(texts) + 1))
        with _MultipartReceiver(options.get(b"boundary", b""), open_writer, max_bytes, files, texts) as receiver:
            await hand_over(request, receiver.feed)
            return receiver.finish()
    if kind in {b"application/x-www-form-urlencoded", b"application/json"}:
        body = await _short_body(request)
        pairs = _json_pairs(body) if kind == b"application/json" else _query_pairs(body)
        found = Form()
        for name, text in pairs:
            _check_field(name, texts, found)
            found.texts[name] = text
        return found
    raise UnsupportedMediaError(
        f"Content-Type {request.headers.get('content-type', '')!r}: expected multipart/form-data or application/json",
        fix="Send the files and the configuration as a multipart form.",
    )


class _MultipartReceiver:
    """Takes a multipart body piece by piece; an unfinished file leaves nothing behind."""

    def __init__(self, boundary: bytes, open_writer: OpenWriter, max_bytes: int, files: Collection[str], texts: Collection[str]) -> None:
        self._open_writer = open_writer
        self._max_bytes = max_bytes
        self._files = files
        self._names = (*files, *texts)
        self._form = Form()
        self._header = (bytearray(), bytearray())
        self._field = ""
        self._writer: StoreWriter | None = None
        self._text = bytearray()
        self._size_bytes = 0
        self._ended = False
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._part_begin,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError as exc:
            raise BadRequestError(f"multipart boundary: {exc}", fix="Let your HTTP library write the Content-Type header.") from exc

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as exc:
            raise BadRequestError(f"multipart body: {exc}", fix="Let your HTTP library write the body.") from exc

    def finish(self) -> Form:
        if not self._ended:
            raise BadRequestError("multipart body: it ends before its closing boundary", fix="Send the whole body.")
        return self._form

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.__exit__(kind, error, trace)

    def _part_begin(self) -> None:
        self._field = ""
        self._size_bytes = 0

    def _header_end(self) -> None:
        name, value = (bytes(part) for part in self._header)
        self._header = (bytearray(), bytearray())
        if name.lower() == b"content-disposition":
            _, options = parse_options_header(value)
            self._field = options.get(b"name", b"").decode("utf-8", "replace")

    def _headers_finished(self) -> None:
        _check_field(self._field, self._names, self._form)
        if self._field in self._files:
            self._writer = self._open_writer(0)  # a part does not say its size
        else:
            self._text = bytearray()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._size_bytes += end - start
        limit = MAX_TEXT_BYTES if self._writer is None else self._max_bytes
        if self._size_bytes > limit:
            raise _too_large(self._field, limit)
        if self._writer is None:
            self._text += data[start:end]
        else:
            self._writer.write(data[start:end])

    def _part_end(self) -> None:
        if self._writer is None:
            self._form.texts[self._field] = _utf8(self._field, bytes(self._text))
            return
        with self._writer as writer:
            self._form.files[self._field] = writer.commit()
        self._writer = None

    def _end(self) -> None:
        self._ended = True


async def _short_body(request: Request) -> bytes:
    _check_length(request, MAX_TEXT_BYTES)
    body = bytearray()
    async with aclosing(pieces_of(request)) as pieces:
        async for piece in pieces:
            body += b"".join(piece)
            if len(body) > MAX_TEXT_BYTES:
                raise _too_large("body", MAX_TEXT_BYTES)
    return bytes(body)


def _query_pairs(body: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(_utf8("body", body), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as exc:
        raise BadRequestError(f"body: it has more than {_MOST_FIELDS} fields", fix="Send only the fields that the route takes.") from exc


def _json_pairs(body: bytes) -> list[tuple[str, str]]:
    try:
        data = json.loads(_utf8("body", body), object_pairs_hook=object_once)
        json.dumps(data, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as exc:
        raise BadRequestError(f"body: it is not JSON ({exc})", fix="Send a JSON object.") from exc
    if not isinstance(data, dict):
        raise BadRequestError(f"body: expected a JSON object, found {type(data).__name__}", fix="Send a JSON object.")
    return [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in data.items() if value is not None]


def _check_field(name: str, allowed: Collection[str], form: Form) -> None:
    if name not in allowed:
        raise InvalidRequestError(f"field {name!r}: expected one of {', '.join(allowed)}", fix="Remove or rename the field.")
    if name in form.files or name in form.texts:
        raise InvalidRequestError(f"field {name!r}: it is given twice", fix="Send it once.")


def _check_length(request: Request, max_bytes: int) -> None:
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large("body", max_bytes)


def _stated_length(request: Request) -> int:
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isascii() and declared.isdecimal() else 0


def _stated_sha256(request: Request) -> str | None:
    """Return the SHA-256 in the Content-Digest of RFC 9530, in hexadecimal, where there is one.

    Raises:
        BadRequestError: It is none.
    """
    for member in request.headers.get("content-digest", "").split(","):
        kind, _, value = member.strip().partition("=")
        if kind != "sha-256":
            continue
        try:
            digest = base64.b64decode(value.removeprefix(":").removesuffix(":"), validate=True)
        except ValueError:
            digest = b""
        if len(digest) != hashlib.sha256().digest_size or not (value.startswith(":") and value.endswith(":")):
            raise BadRequestError(f"Content-Digest: found {member!r}, expected sha-256=:BASE64:", fix="See RFC 9530, or leave it out.")
        return digest.hex()
    return None


def _too_large(name: str, max_bytes: int) -> TooLargeError:
    return TooLargeError(
        f"{name}: it is larger than {max_bytes} bytes, the limit of this server",
        fix="Send a smaller one, or ask the operator to raise ONNX_TRT_OPTIMIZER_MAX_UPLOAD_BYTES.",
    )


def _utf8(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise BadRequestError(f"{name}: it is not UTF-8 text ({exc})", fix="Send UTF-8.") from exc


_MOST_FIELDS = 100
