"""A process that runs jobs, or their GPU stages, and answers nobody: the command ``worker``."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Mapping
from types import FrameType

from calibration.errors import InvalidConfigError
from calibration.execution.provider import Provider
from calibration.execution.provider_here import provider_here
from calibration.plain_text import folders_to_hide
from calibration.process.memory import keep_little_free_memory, set_start_up_apart
from engine_builder.backends.registry import gpu_here
from service.api.log_lines import log_plain_lines
from service.database.role import Role
from service.jobs.execution.placement import gpu_type
from service.jobs.resources import Deps, open_deps
from service.jobs.runner import Runner
from service.settings import Settings
from service.worker.stage_process import stage_environment

logger = logging.getLogger(__name__)


def work_until_stopped(settings: Settings, role: Role, deps: Deps | None = None) -> None:
    """Work until SIGTERM or SIGINT; what runs then goes on elsewhere, or here at the next start.

    Args:
        settings: The settings.
        role: ``CPU`` or ``GPU``.
        deps: The worker's belongings, which are closed at the end; opened from the settings if absent.

    Raises:
        InvalidConfigError: No database is named that other processes share, or there is no GPU to work on.
        ProcessNameInUseError: Another process works under this one's name.
        StorageError: The database cannot be reached.
    """
    keep_little_free_memory()  # before there are threads
    stopped = threading.Event()
    log_plain_lines(folders_to_hide(settings.data_dir, settings.files_dir), settings.log_format)
    settings.require_shared()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    if deps is None:
        gpu = own_gpu() if role is Role.GPU else None
        deps = open_deps(settings, role=role, gpu=gpu, probes=None if gpu is None else own_probes(settings.parts_on_gpu_workers))
    runner = Runner(deps)
    try:
        deps.warm_parent.start()
        runner.start()
        set_start_up_apart()
        stopped.wait()
    finally:
        runner.stop()
        deps.close()


def own_probes(parts: str, find: Callable[[Mapping[str, str]], Provider] = provider_here) -> Provider | None:
    """Return what this process measures parts of stages with while its GPU is idle; None: it does not.

    Args:
        parts: The setting ``parts_on_gpu_workers``.
        find: Returns what probes compute with in a process with some environment.
    """
    if parts == "none":
        return None
    found = find(stage_environment())
    if found is Provider.CUDA or parts == "any":
        return found
    logger.info("CUDA does not work for onnxruntime here: no parts of stages are measured while the GPU is idle")
    return None


def own_gpu() -> str:
    """Return the type of the GPU that stages of this process open.

    Raises:
        InvalidConfigError: There is none.
    """
    found = gpu_here()
    if found is None:
        raise InvalidConfigError(
            "worker: found no GPU that CUDA shows, expected one", fix="Start it on a machine with a GPU, or use `worker --role cpu`."
        )
    return gpu_type(found.name)
