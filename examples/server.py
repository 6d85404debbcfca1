"""Starts a server for as long as an example needs it, and leaves nothing of it behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

START_SECONDS = 60.0
STOP_SECONDS = 20.0
SETTINGS_PREFIX = "ONNX_TRT_OPTIMIZER_"


class ServerStartError(Exception):
    """The server did not get ready; the message holds the end of its log."""


@contextlib.contextmanager
def running_server(folder: Path) -> Iterator[str]:
    """Start ``python -m service serve`` on a free loopback port and give its address; at the end stop it by SIGTERM.

    Args:
        folder: For its data and its log; whoever made it removes it.

    Raises:
        ServerStartError: It ended, or was not ready in time.
    """
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    log = folder / "server.log"
    # The settings of a server that the user runs for real must not reach this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS_PREFIX)}
    command = [sys.executable, "-m", "service", "serve", "--host", "127.0.0.1", "--port", str(port), "--data-dir", str(folder / "data")]
    with log.open("wb") as stream:
        # A session of its own: Ctrl-C reaches this process only, which then stops the server in order.
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment, start_new_session=True)
    try:
        _wait_until_ready(process, address, log)
        yield address
    finally:
        _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(base_url=address, trust_env=False, timeout=5.0) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ServerStartError(f"the server ended with status {process.returncode}:\n{_tail(log)}")
            with contextlib.suppress(httpx.TransportError):
                if client.get("/readyz").is_success:
                    return
            time.sleep(0.2)
    raise ServerStartError(f"the server was not ready after {START_SECONDS:.0f} s:\n{_tail(log)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
