"""One timing at a time per GPU, also between processes: a lock file per UUID, which the system frees when its holder dies."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine_builder.errors import EngineError

_POLL_S = 0.1


@contextmanager
def gpu_lock(
    uuid: str,
    *,
    wait_s: float,
    folder: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold the GPU while the block runs.

    Args:
        uuid: Which GPU, as the driver names it.
        wait_s: Seconds to wait for another holder before giving up.
        folder: Where the lock files lie, the same for all who share the GPU; by default one under the machine's temporary folder.
        clock: Seconds from any origin.
        sleep: Waits for so many seconds.

    Raises:
        EngineError: Another process holds the GPU for longer than ``wait_s``; it is named by its id.
    """
    place = folder if folder is not None else Path(tempfile.gettempdir()) / "onnx-trt-optimizer-gpus"
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{uuid}.lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        start = clock()
        while not _is_taken(handle):
            if clock() - start >= wait_s:
                holder = path.read_text(encoding="ascii").strip() or "another process"
                raise EngineError(
                    f"GPU {uuid} is in use by process {holder} for over {wait_s:g} s", fix="wait for its job to end, or use another GPU"
                )
            sleep(_POLL_S)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode("ascii"), 0)
        yield
    finally:
        os.close(handle)


def _is_taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
