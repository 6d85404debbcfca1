"""Whether a server can listen where it is told to, asked before anything is opened: the web server itself would only end."""

from __future__ import annotations

import errno
import socket

from calibration.errors import InvalidConfigError


def check_address(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on.

    Args:
        host: A name or an address.
        port: 0 for any free one.

    Raises:
        InvalidConfigError: Another program listens there, the port is not allowed, or this machine has no such address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as exc:
        raise InvalidConfigError(f"host {host!r}: this machine has no such address", fix="Give one that it has: 127.0.0.1.") from exc
    with socket.socket(family, kind, protocol) as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the web server does
        try:
            found.bind(address)
        except OSError as exc:
            raise _refused(exc, host, port) from exc


def _refused(error: OSError, host: str, port: int) -> InvalidConfigError:
    if error.errno == errno.EADDRINUSE:
        return InvalidConfigError(
            f"port {port} of {host}: another program listens there", fix="Stop it, or give another --port; --port 0 takes any free one."
        )
    if error.errno == errno.EACCES:
        return InvalidConfigError(f"port {port}: this user may not listen on it", fix="Give a --port of 1024 or more.")
    return InvalidConfigError(f"host {host!r}, port {port}: {error.strerror}", fix="Give an address that this machine has: 127.0.0.1.")
