"""Where the stages of a job run: those that open a GPU in the queue of its type, all others where the job is."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from calibration.errors import InvalidConfigError
from engine_builder.backends.gpu.catalogue import gpu_by_name
from engine_builder.backends.registry import BACKENDS, Targets
from engine_builder.config.config import Config
from engine_builder.errors import UnsupportedTargetError
from service.database.members import Members


def gpu_queue(gpu: str) -> str:
    """Return the name of the queue of a type of GPU; ``gpu`` is its type."""
    return f"gpu.{gpu}"


def gpu_type(name: str) -> str:
    """Return the type of a GPU from the name that a driver or a user gives it: one type, one name."""
    try:
        return gpu_by_name(name).name
    except UnsupportedTargetError:  # not in the list
        return name.removeprefix(_VENDOR)


def branch_configs(config: Config) -> tuple[Config, ...]:
    """Return the configuration of each branch of a job, one for each type of GPU in ``gpus``; none where the job names none there.

    Args:
        config: The job's.

    Raises:
        InvalidConfigError: Two names are of the same type.
    """
    types = [gpu_type(name) for name in config.gpus]
    twice = [name for name, count in Counter(types).items() if count > 1]
    if twice:
        raise InvalidConfigError(
            f"gpus: found {', '.join(map(repr, config.gpus))}, where two name the type {twice[0]!r}", fix="Name each type once."
        )
    return tuple(replace(config, gpus=(), gpu=name) for name in types)


def check_place(config: Config, members: Members, targets: Targets = BACKENDS) -> None:
    """Refuse a job for which no process could build engines.

    Args:
        config: The job's.
        members: The processes that are known, alive or not.
        targets: What engines can be built for.

    Raises:
        InvalidConfigError: It is for a GPU and does not say for which.
        UnsupportedTargetError: Its engines are built on their GPU, and no worker has one.
    """
    if config.target not in targets or not targets[config.target].takes_gpu:
        return
    known = ", ".join(sorted(members.gpus())) or "none"
    if config.gpu is None:
        raise InvalidConfigError(
            "gpu: found none, expected the type of GPU whose workers build and time the engines", fix=f"Types that workers have: {known}."
        )
    if targets[config.target].opens_gpu(config.gpu) and placed_on(config, members, targets) is None:
        raise UnsupportedTargetError(
            f"gpu: no worker has {gpu_type(config.gpu)!r}, on which engines of {config.target} are built",
            fix=f"Choose a type that a worker has ({known}), or start one: `worker --role gpu`.",
        )


def placed_on(config: Config, members: Members, targets: Targets = BACKENDS) -> str | None:
    """Return the type of GPU on whose workers engines are built and timed; None where that is done with the rest of the job.

    A type that a worker ever had counts, as it may come back. Plans for another one are built ahead of time, where the target can.

    Args:
        config: The job's.
        members: The processes that are known.
        targets: What engines can be built for.
    """
    if config.gpu is None or config.target not in targets or not targets[config.target].takes_gpu:
        return None
    wanted = gpu_type(config.gpu)
    return wanted if wanted in members.gpus() else None


_VENDOR = "NVIDIA "
