"""What every test shares.

GPU tests skip without a GPU, a missing tool is a failure on continuous integration, files come in the order of ``file_order``, and
hypothesis does not time single examples.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import signal
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from engine_builder.backends.gpu.lock import FOLDER_VARIABLE
from tests import object_store_server
from tests.file_order import in_order
from tests.object_store_server import ObjectStoreServer
from tests.postgres_server import REASON, PostgresServer, binaries, running_postgres
from tests.required_tools import pytest_runtest_makereport as pytest_runtest_makereport  # a hook: pytest finds it here by its name

if TYPE_CHECKING:
    from service.worker.warm_parent import WarmParent  # the service is loaded only where it is tested

settings.register_profile("project", deadline=None)
settings.load_profile("project")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in its background; tests send it to programs of theirs
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without a look for garbage, and let no later look go through thousands of tests, which takes most of a second each time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {path: number for number, path in enumerate(in_order(item.path for item in items))}
    items.sort(key=lambda item: place[item.path])
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    reason = _why_no_gpu() if gpu_items else None
    if reason is not None:
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _no_kept_measurements(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let no test see the user's cache, or another test's; the folder is made by whoever writes to it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / f"cache-{next(_NUMBERS)}"))


@pytest.fixture(autouse=True)
def _own_gpu_locks(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let tests that pretend to use a GPU wait for no job on this machine, and none for them."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path_factory.getbasetemp() / "gpu-locks"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A Postgres of this run of tests, which nobody ends; each test has a database of its own there."""
    found = binaries()
    if found is None:
        pytest.skip(REASON)
    with running_postgres(found) as server:
        yield server


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStoreServer]:
    """An object store of this run of tests, which nobody ends; each test has a part of the bucket there."""
    found = object_store_server.binary()
    if found is None:
        pytest.skip(object_store_server.REASON)
    with object_store_server.running_object_store(found) as server:
        yield server


@pytest.fixture(scope="session")
def lasting_parent() -> Iterator[WarmParent]:
    """A parent of real stages that outlasts the runs that use it."""
    from engine_builder.pipeline.stage_table import __name__ as table
    from service.worker.warm_parent import WarmParent

    class Lasting(WarmParent):
        def close(self) -> None:
            """Stay for the next run."""

    parent = Lasting(table)
    yield parent
    WarmParent.close(parent)


@pytest.fixture
def stages_of_one_parent(lasting_parent: WarmParent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let whole jobs in this process fork their stages from one parent, whose start takes longer than a small job."""
    monkeypatch.setattr("service.local.local_job.WarmParent", lambda stages, forks_itself=False: lasting_parent)


_NUMBERS = itertools.count()


def _why_no_gpu() -> str | None:
    """Ask the driver itself, so that no optional package is needed to find out."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver (libcuda.so.1) on this machine"
    status = driver.cuInit(0)
    if status != 0:
        return f"the NVIDIA driver does not start (cuInit returned {status})"
    count = ctypes.c_int(0)
    driver.cuDeviceGetCount(ctypes.byref(count))
    return None if count.value else "the NVIDIA driver sees no GPU"
