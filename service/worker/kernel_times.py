"""Kernel times that jobs share: what the builder of one job measured, the next one on such a GPU need not measure again.

The files are the builder's own timing caches, one for each type of GPU, version of its driver and version of TensorRT. They hold sizes and
number formats of layers and how long each kernel took, no weights and no names. A job works on copies in its own folder, which come back
when it ends, however it ends.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from engine_builder.backends.atomic_file import write_atomically
from engine_builder.backends.build_options import CACHE_SUFFIX
from engine_builder.backends.registry import BACKENDS, Targets, backend_for
from engine_builder.config.config import Config
from engine_builder.engines.factory import CACHES
from engine_builder.errors import UnsupportedTargetError

logger = logging.getLogger(__name__)

FOLDER = "kernel-times"
MOST_BYTES = 2**28  # of one file: TensorRT's take some hundred kilobytes a network
_KEY = "share_kernel_times"
_LONG_AGO = 1.0  # seconds since 1970: a lent file is older than any that the job's builder writes


@contextmanager
def shared_kernel_times(folder: Path | None, workspace: Path, config: Config, *, targets: Targets = BACKENDS) -> Iterator[None]:
    """Lend kernel times to a job while the block runs, and take back what it adds.

    What cannot be read or written costs a warning, never a job.

    Args:
        folder: Where they are kept from job to job; None where nothing is kept for other jobs.
        workspace: The job's folder; files that it has already, from before a restart, stay.
        config: The job's settings.
        targets: What engines can be built for.
    """
    if folder is None or not _is_wanted(config, targets):
        yield
        return
    own = workspace / CACHES
    _copy(folder, own, is_lent=True)
    try:
        yield
    finally:
        _copy(own, folder, is_lent=False)


def without_shared_times(config: Config, *, targets: Targets = BACKENDS) -> Config:
    """Return the configuration of a job that is lent no kernel times, nor gives its own; for ``targets`` see ``shared_kernel_times``."""
    if not _is_wanted(config, targets):
        return config
    return replace(config, builder=replace(config.builder, share_kernel_times=False))


def _is_wanted(config: Config, targets: Targets) -> bool:
    if not config.builder.share_kernel_times:
        return False
    try:
        return _KEY in backend_for(config.target, config.gpu, table=targets).capabilities.builder.keys
    except UnsupportedTargetError:  # the job will say so
        return False


def _copy(source: Path, target: Path, *, is_lent: bool) -> None:
    for path in sorted(source.glob(f"[!.]*{CACHE_SUFFIX}")):
        to = target / path.name
        try:
            if path.stat().st_size > MOST_BYTES or (is_lent and to.exists()):
                continue
            data = path.read_bytes()
            if to.exists() and to.read_bytes() == data:
                continue
            target.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(to, data)
            if is_lent:
                os.utime(to, (_LONG_AGO, _LONG_AGO))
        except OSError as exc:
            logger.warning("kernel times: %s was not copied to %s: %s", path.name, target, exc)
