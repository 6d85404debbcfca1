"""One job at a time per GPU, also between processes: a lock file per UUID, which the system frees when its holder dies.

All who share a GPU must look in one folder, whatever their temporary folder is: ``lock_folder``. Builds hold the lock too, since a builder
chooses kernels by timing them.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from engine_builder.errors import EngineError, GpuInUseError

FOLDER_VARIABLE = "ONNX_TRT_OPTIMIZER_GPU_LOCKS"
WAIT_SECONDS = 3600.0  # for another job to let go: a build may take long
_NAME = "onnx-trt-optimizer-gpus"
_PLACES = (Path("/run/lock"), Path("/tmp"))  # the first that every user may write to: the same one for all of them
_POLL_S = 0.1
_FOR_ALL, _STICKY_FOR_ALL = 0o666, 0o1777


def lock_folder(environment: Mapping[str, str], places: tuple[Path, ...] = _PLACES) -> Path:
    """Return the folder of the lock files on this machine.

    Args:
        environment: The variable ``FOLDER_VARIABLE`` names another one; containers that share a GPU need one that they share.
        places: Folders of the system, in order of preference.
    """
    named = environment.get(FOLDER_VARIABLE, "").strip()
    if named:
        return Path(named)
    open_to_all = (place for place in places if place.is_dir() and place.stat().st_mode & stat.S_IWOTH)
    return next(open_to_all, places[-1]) / _NAME


@contextmanager
def gpu_lock(
    uuid: str,
    *,
    wait_s: float = WAIT_SECONDS,
    folder: Path | None = None,
    on_wait: Callable[[str], None] = lambda holder: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold the GPU while the block runs.

    Args:
        uuid: Which GPU, as the driver names it.
        wait_s: Seconds to wait for another holder before giving up.
        folder: Where the lock files lie, the same for all who share the GPU; by default ``lock_folder``.
        on_wait: Is told once who holds the GPU, where it is not free; what it raises ends the wait.
        clock: Seconds from any origin.
        sleep: Waits for so many seconds.

    Raises:
        GpuInUseError: Another process holds the GPU for longer than ``wait_s``, and is named by its id.
        EngineError: No lock file can be made.
    """
    place = folder if folder is not None else lock_folder(os.environ)
    path = place / f"{uuid}.lock"
    handle = _opened(path)
    try:
        start, is_told = clock(), False
        while not _is_taken(handle):
            holder = path.read_text(encoding="ascii").strip() or "another process"
            if not is_told:
                on_wait(holder)
                is_told = True
            if clock() - start >= wait_s:
                raise GpuInUseError(
                    f"GPU {uuid} is in use by process {holder} for over {wait_s:g} s", fix="wait for its job to end, or use another GPU"
                )
            sleep(_POLL_S)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode("ascii"), 0)
        yield
    finally:
        os.close(handle)


def _opened(path: Path) -> int:
    """Return a handle of the lock file, which every user of the machine may open; a link in its place is not followed."""
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.parent.chmod(_STICKY_FOR_ALL)  # whoever owns a file in there, others may lock it and not remove it
        try:
            # First without O_CREAT: with it, the kernel keeps users from files of others in such folders (fs.protected_regular).
            return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _FOR_ALL)
            if os.fstat(handle).st_uid == os.geteuid():
                os.fchmod(handle, _FOR_ALL)  # whatever the umask is
            return handle
    except OSError as exc:
        raise EngineError(
            f"no lock file for the GPU can be had at {path}: {exc}",
            fix=f"let this user write to {path.parent}, or name another folder with {FOLDER_VARIABLE}",
        ) from exc


def _is_taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
