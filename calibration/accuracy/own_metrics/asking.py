"""How a stage asks another process for the scores of samples: arrays over a local socket, a connection for each question.

A message is one line of JSON, with name, type and shape of each array, and the arrays' bytes behind it. Only numbers are ever read.
"""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from calibration.codec import as_object, value_from_json
from calibration.execution.onnxruntime_session import Array

_KINDS = "biuf"
_MAX_LINE = 2**20


class BrokenMessageError(Exception):
    """The other side is gone, or says what it should not. It is no outcome: who asked has ended, or will say so itself."""


@dataclass(frozen=True, slots=True)
class Message:
    """A question or an answer."""

    arrays: Mapping[str, Array]
    error: Mapping[str, object] | None = None  # a problem object, in the place of arrays


@dataclass(frozen=True, slots=True)
class _Sent:
    """An array in the line of JSON."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def send(connection: socket.socket, message: Message) -> None:
    """Send a message.

    Raises:
        BrokenMessageError: The other side is gone.
    """
    arrays = {name: _as_numbers(array) for name, array in message.arrays.items()}
    line = {
        "arrays": [{"name": name, "dtype": array.dtype.str, "shape": list(array.shape)} for name, array in arrays.items()],
        "error": message.error,
    }
    try:
        connection.sendall(json.dumps(line).encode() + b"\n")
        for array in arrays.values():
            if array.size:
                connection.sendall(array.reshape(-1).view(np.uint8).data)
    except OSError as exc:
        raise BrokenMessageError(f"the other side is gone: {exc.strerror}") from exc


def receive(connection: socket.socket) -> Message:
    """Return the next message.

    Raises:
        BrokenMessageError: The other side is gone, or says what it should not.
    """
    try:
        with connection.makefile("rb") as file:
            line = json.loads(file.readline(_MAX_LINE))
            if not isinstance(line, dict):
                raise TypeError("no object")
            error = line.get("error")
            arrays = {one.name: _array(one, file) for one in value_from_json(tuple[_Sent, ...], line.get("arrays"))}
            return Message(arrays, None if error is None else as_object(error))
    except (OSError, ValueError, TypeError, MemoryError) as exc:
        raise BrokenMessageError(f"no message of ours: {exc}") from exc


def _array(sent: _Sent, file: BinaryIO) -> Array:
    dtype = np.dtype(sent.dtype)
    if dtype.kind not in _KINDS or min(sent.shape, default=0) < 0:
        raise ValueError(f"array {sent.name!r}: {sent.dtype} of shape {sent.shape}")
    data = file.read(math.prod(sent.shape) * dtype.itemsize)
    return np.frombuffer(bytearray(data), dtype).reshape(sent.shape)


def _as_numbers(array: Array) -> Array:
    """Return an array of one of numpy's own types, its values one after the other; a copy where it is not."""
    return np.ascontiguousarray(array if array.dtype.kind in _KINDS else array.astype(np.float32)).reshape(array.shape)
