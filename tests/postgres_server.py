"""A real Postgres that tests start, stop and kill: on loopback, in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

REASON = "postgres is not installed"
_USERS = ("postgres", "nobody")  # it refuses to run as root
_SETTINGS = {
    "fsync": "off",  # the machine goes on when the server is killed
    "max_connections": "100",
    "shared_buffers": "32MB",
    "max_parallel_workers_per_gather": "0",
}


def binaries() -> Path | None:
    """Return the folder with ``initdb`` and ``postgres``: those on the path, or Debian's, which are not."""
    found = shutil.which("initdb")
    folders = ([Path(found).resolve().parent] if found else []) + sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").is_file() and (folder / "postgres").is_file()), None)


class PostgresServer:
    """One server. Its databases outlast its end and its next start."""

    def __init__(self, folder: Path, binaries: Path, *addresses: str) -> None:
        """Prepare one, which listens on further addresses than loopback, too."""
        self._folder, self._binaries, self._addresses = folder, binaries, addresses
        self._names = iter(range(10**6))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.process: subprocess.Popen[bytes] | None = None
        self._user = next((name for name in _USERS if _is_user(name)), None) if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(folder, pwd.getpwnam(self._user).pw_uid, pwd.getpwnam(self._user).pw_gid)
        self._run(
            "initdb", "--no-sync", "--auth=trust", "--encoding=UTF8", "--username=optimizer", "--pgdata", str(self.data)
        ).check_returncode()
        with (self.data / "pg_hba.conf").open("a") as rules:
            rules.writelines(f"host all all {address}/30 trust\n" for address in addresses)

    @property
    def data(self) -> Path:
        """The folder of its data."""
        return self._folder / "data"

    def start(self) -> None:
        """Start it and wait until it answers."""
        (self.data / "postmaster.pid").unlink(missing_ok=True)  # of one that was killed
        own = {"listen_addresses": ",".join(("127.0.0.1", *self._addresses)), "unix_socket_directories": str(self._folder)}
        settings = [f"--{name}={value}" for name, value in {**_SETTINGS, **own}.items()]
        command = [str(self._binaries / "postgres"), "-D", str(self.data), "-p", str(self.port), *settings]
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, user=self._user, group=self._group, cwd=self._folder)
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self.process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """End it as a power cut would: the server and all that it started."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in (self.process.pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(20)

    def stop(self) -> None:
        """End it in order, at once."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(20)

    def create_database(self) -> str:
        """Create an empty database and return its URL, as a setting names it."""
        name = f"test{next(self._names)}"
        with psycopg.connect(self._address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql+psycopg://optimizer@127.0.0.1:{self.port}/{name}"

    def dump(self, url: str) -> str:
        """Return a database as ``pg_dump`` writes it, given its URL."""
        return self._checked("pg_dump", "--no-owner", *self._connection(url))

    def restore(self, dump: str, url: str) -> None:
        """Read what ``dump`` returned into an empty database."""
        path = self._folder / "dump.sql"
        path.write_text(dump, encoding="utf-8")
        path.chmod(0o644)
        self._checked("psql", "--quiet", "--set=ON_ERROR_STOP=1", f"--file={path}", *self._connection(url))

    def _connection(self, url: str) -> tuple[str, ...]:
        return ("--host=127.0.0.1", f"--port={self.port}", "--username=optimizer", f"--dbname={url.rpartition('/')[2]}")

    def _checked(self, name: str, *arguments: str) -> str:
        done = self._run(name, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def _group(self) -> int | None:
        return None if self._user is None else pwd.getpwnam(self._user).pw_gid

    def _address(self, database: str) -> str:
        return f"host=127.0.0.1 port={self.port} user=optimizer dbname={database} connect_timeout=5"

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._address("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(self._binaries / name), *arguments]
        environment = {**os.environ, "LC_ALL": "C"}
        return subprocess.run(
            command, capture_output=True, text=True, check=False, user=self._user, group=self._group, cwd=self._folder, env=environment
        )


@contextmanager
def running_postgres(binaries: Path, *addresses: str) -> Iterator[PostgresServer]:
    """Give a started server, whose folder goes with it; it listens on further addresses than loopback, too."""
    # Not in pytest's own folder, which is closed to the user that the server runs as.
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder), binaries, *addresses)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
