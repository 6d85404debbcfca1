"""What an operator may set, from environment variables that begin with ONNX_TRT_OPTIMIZER_."""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from calibration.errors import InvalidConfigError

PREFIX = "ONNX_TRT_OPTIMIZER_"


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one server process.

    Each field is read from ``ONNX_TRT_OPTIMIZER_`` and its name in capitals.
    """

    data_dir: Path = Path("onnx-trt-optimizer-data")  # everything the server keeps
    host: str = "127.0.0.1"
    port: int = 8000  # 0: any free one
    api_key: str | None = dataclasses.field(default=None, repr=False)  # an admin's; without it, or keys made, only this machine may connect
    max_upload_bytes: int = 4 * 2**30  # for one uploaded file, and for the files inside one archive together
    stage_memory_bytes: int = 16 * 2**30  # address space of one stage's child process
    stage_seconds: float = 3600.0  # a stage that runs longer is ended
    unpack_seconds: float = 100.0  # an archive that takes longer to unpack is refused; clients wait for two minutes
    min_free_bytes: int = 256 * 2**20  # uploads leave so much of the disk free
    cache_bytes: int = 4 * 2**30  # of measurements kept for other jobs; 0: none
    retention_days: float | None = None  # finished jobs, and uploads that nobody uses, go after so long; None: never
    retention_bytes: int | None = None  # the oldest of them go while the store is larger; None: never
    webhook_addresses: str = "public"  # "any": messages may go to this machine and its network too
    audit_bytes: int = 64 * 2**20  # of the audit log: the oldest entries go past it
    log_format: str = "text"  # "json": one object a line
    database_url: str | None = dataclasses.field(default=None, repr=False)  # Postgres, where several processes work together
    shared_dir: Path | None = None  # a folder that all these processes see: jobs/ and store/ lie there
    object_store: str | None = None  # s3://BUCKET or s3://BUCKET/PREFIX in the place of that folder: each process keeps jobs/ for itself
    object_store_public_endpoint: str | None = None  # the store's address as callers reach it, for downloads that are sent there
    object_cache_bytes: int = 16 * 2**30  # of objects that a process keeps on its own disk; the longest unused go past it
    downloads: str = "stream"  # "redirect": callers are sent to the object store
    executor_id: str | None = None  # this process's name among them; by default made of its host and what it does
    lease_seconds: float = 15.0  # a process that the database has not heard of for so long is taken for dead
    encryption_keys: str | None = dataclasses.field(default=None, repr=False)  # of secrets in the database; None: in a file beside store/
    trials_ahead: int = 2  # so many engines of one job are built and scored on idle GPUs before its search asks for them; 0: none
    parts_on_gpu_workers: str = "cuda"  # what idle gpu workers measure parts of stages with; "any": the CPU where CUDA does not work
    tenant_running_jobs: int | None = None  # so many jobs of one tenant run at the same time; None: as many as there are workers

    def __post_init__(self) -> None:
        """Check every bound.

        Raises:
            InvalidConfigError: A value is out of bounds.
        """
        for name, low in _LOWEST.items():
            value = getattr(self, name)
            if value is not None and not value >= low:  # so that NaN is refused too
                raise InvalidConfigError(f"{PREFIX}{name.upper()}: found {value}, expected at least {low}", fix=f"Set it to {low} or more.")
        for name, known in _CHOICES.items():
            if (found := getattr(self, name)) not in known:
                words = " or ".join(known)
                raise InvalidConfigError(f"{PREFIX}{name.upper()}: found {found!r}, expected {words}", fix="Choose one of them.")
        for number, key in enumerate(split_keys(self.encryption_keys or ""), 1):
            if not _ENCRYPTION_KEY.fullmatch(key):  # which is not shown
                raise InvalidConfigError(
                    f"{PREFIX}ENCRYPTION_KEYS: number {number} is no key, expected 43 letters, digits, - or _ and a =",
                    fix="Make one: `onnx-trt-optimizer rotate-encryption-key --print`. Several stand with commas between them.",
                )
        if self.database_url is not None:
            self._check_shared(self.database_url)
        elif self.object_store is not None:
            raise InvalidConfigError(
                f"{PREFIX}OBJECT_STORE: found it without {PREFIX}DATABASE_URL, expected both",
                fix="Name the Postgres too; one process alone keeps its files in its data folder.",
            )
        if self.downloads == "redirect" and self.object_store is None:
            raise InvalidConfigError(
                f"{PREFIX}DOWNLOADS: found 'redirect' without {PREFIX}OBJECT_STORE, to which callers would be sent",
                fix="Name the object store, or leave it out.",
            )
        if self.port > _HIGHEST_PORT:
            raise InvalidConfigError(f"{PREFIX}PORT: found {self.port}, expected 0 to {_HIGHEST_PORT}", fix="Choose a port in that range.")

    @property
    def files_dir(self) -> Path:
        """The folder of ``jobs/`` and ``store/``."""
        return self.data_dir if self.shared_dir is None else self.shared_dir

    @property
    def is_shared(self) -> bool:
        """Whether several processes work together."""
        return self.database_url is not None

    def require_shared(self) -> None:
        """Accept the settings of a process that does a part of the work.

        Raises:
            InvalidConfigError: They name no database that others share.
        """
        if not self.is_shared:
            raise InvalidConfigError(
                f"{PREFIX}DATABASE_URL: found none, expected the Postgres that this process shares with others",
                fix="Name it, or use `serve` alone, which runs jobs by itself.",
            )

    def _check_shared(self, url: str) -> None:
        if not _POSTGRES_URL.fullmatch(url):
            raise InvalidConfigError(
                f"{PREFIX}DATABASE_URL: found something else than {_POSTGRES}...",
                fix=f"Give {_POSTGRES}USER:PASSWORD@HOST:PORT/DATABASE, or leave it out: then one process keeps its jobs in its own file.",
            )
        if (self.shared_dir is None) == (self.object_store is None):
            found = "none" if self.shared_dir is None else f"{PREFIX}OBJECT_STORE beside it"
            raise InvalidConfigError(
                f"{PREFIX}SHARED_DIR: found {found}, expected the folder that all processes of the database see, or {PREFIX}OBJECT_STORE",
                fix="Name one of them.",
            )
        if self.object_store is not None and not _OBJECT_STORE.fullmatch(self.object_store):
            raise InvalidConfigError(
                f"{PREFIX}OBJECT_STORE: found {self.object_store!r}, expected s3://BUCKET or s3://BUCKET/PREFIX", fix="Name it so."
            )


def settings_from_environment(environment: Mapping[str, str]) -> Settings:
    """Return the settings that the variables with our prefix give; an empty variable counts as unset.

    Raises:
        InvalidConfigError: A variable has a wrong type or is out of bounds.
    """
    found: dict[str, object] = {}
    for field in dataclasses.fields(Settings):
        text = environment.get(PREFIX + field.name.upper(), "").strip()
        if text:
            found[field.name] = _parsed(field.name, text)
    return dataclasses.replace(Settings(), **found)  # type: ignore[arg-type]  # _parsed gives each field its own type


def check_guarded(settings: Settings, *, has_keys: bool) -> None:
    """Refuse to listen to other machines without a key, which would let everybody in.

    Args:
        settings: Of the server.
        has_keys: Whether a key was made, or may have been.

    Raises:
        InvalidConfigError: The settings have no key, and none was made.
    """
    if settings.api_key is None and not is_loopback(settings.host) and not has_keys:
        raise InvalidConfigError(
            f"host {settings.host!r}: without an API key the server listens to this machine only (127.0.0.1, ::1 or localhost)",
            fix=f"Make a key with `keys create`, or set {PREFIX}API_KEY to a long random text, or bind to 127.0.0.1.",
        )


def split_keys(text: str) -> list[str]:
    """Return the keys of a text, which has one a line, or commas between them."""
    return text.replace(",", " ").split()


@functools.lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Whether this is an address of this machine only, as text, perhaps in brackets, or "localhost"."""
    try:
        address = ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        return host.lower() == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return bool(address.is_loopback or (mapped is not None and mapped.is_loopback))


def _parsed(name: str, text: str) -> object:
    try:
        if name in {"data_dir", "shared_dir"}:
            return Path(text).expanduser()
        if name in {"stage_seconds", "unpack_seconds", "retention_days", "lease_seconds"}:
            return float(text)
        if name in {
            "host",
            "api_key",
            "database_url",
            "encryption_keys",
            "executor_id",
            "object_store",
            "object_store_public_endpoint",
            *_CHOICES,
        }:
            return text
        return int(text)
    except ValueError as exc:
        raise InvalidConfigError(f"{PREFIX}{name.upper()}: found {text!r}, expected a number", fix="Give a plain number.") from exc


_LOWEST = {
    "max_upload_bytes": 1,
    "stage_memory_bytes": 2**28,
    "stage_seconds": 1,
    "unpack_seconds": 1,
    "min_free_bytes": 0,
    "port": 0,
    "cache_bytes": 0,
    "object_cache_bytes": 0,
    "retention_days": 0,
    "retention_bytes": 0,
    "lease_seconds": 2,
    "trials_ahead": 0,
    "tenant_running_jobs": 1,
    "audit_bytes": 2**20,
}
_CHOICES = {
    "webhook_addresses": ("public", "any"),
    "log_format": ("text", "json"),
    "downloads": ("stream", "redirect"),
    "parts_on_gpu_workers": ("cuda", "any", "none"),
}
_POSTGRES = "postgresql+psycopg://"
_POSTGRES_URL = re.compile(
    re.escape(_POSTGRES) + r"(?:[^:/]*(?::[^@]*)?@)?(?:\[[^/?]+\]|[^/:?]+)?(?::[0-9]*)?(?:[/?].*)?"
)  # as SQLAlchemy does
_OBJECT_STORE = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[A-Za-z0-9._-]+)*/?")
_ENCRYPTION_KEY = re.compile(r"[A-Za-z0-9_-]{43}=")
_HIGHEST_PORT = 65535
