"""The backend that builds a job's engines: with the job's settings of the builder, and kernel times kept from build to build.

The times lie in the job's workspace, where its stages, which run one after the other, find what the ones before measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from engine_builder.backends.base import Backend
from engine_builder.backends.build_options import CACHE_SUFFIX, BuildOptions
from engine_builder.backends.registry import backend_for, targets_of
from engine_builder.config.config import Config
from engine_builder.workspace.workspace import FileRef, StageContext, Workspace

CACHES = "timing-caches"  # folder in the workspace, a file for each GPU type and TensorRT version


class Building(Protocol):
    """Gives the backend that builds a job's engines; ``building_backend`` is the one in use."""

    def __call__(self, config: Config, context: StageContext, *, final: bool = False, route: str = "", stripped: bool = False) -> Backend:
        """Return it."""


def building_backend(config: Config, context: StageContext, *, final: bool = False, route: str = "", stripped: bool = False) -> Backend:
    """Return the backend that builds engines of a job.

    Args:
        config: The job's settings.
        context: Where the job's timing caches are.
        final: Whether to build at the level of the engine that ships, and not at that of the search.
        route: The build route; the builder's own by default.
        stripped: Whether to build plans without their weights, for targets whose builder has the key ``strip_weights``.

    Raises:
        UnsupportedTargetError: See ``backend_for``.
    """
    options = build_options(config, context, final=final, route=route, stripped=stripped)
    return backend_for(config.target, config.gpu, options, table=targets_of(context))


def build_options(config: Config, context: StageContext, *, final: bool, route: str = "", stripped: bool = False) -> BuildOptions:
    """Return how the engines of a job are built; arguments as for ``building_backend``."""
    builder = config.builder
    return BuildOptions(
        workspace_bytes=None if builder.workspace_mb is None else builder.workspace_mb * 2**20,
        optimization_level=builder.optimization_level if final else builder.search_level,
        hardware_compatible=builder.hardware_compatible,
        version_compatible=builder.version_compatible,
        timing_caches=context.workspace.path(CACHES),
        weight_budget_bytes=None if builder.weight_streaming_mb is None else builder.weight_streaming_mb * 2**20,
        build_route=route,
        strip_weights=stripped,
    )


def kept_timing_cache(workspace: Workspace) -> FileRef | None:
    """Return the timing cache that the job's last build wrote, None where none was kept."""
    found = sorted(workspace.path(CACHES).glob(f"[!.]*{CACHE_SUFFIX}"), key=_written_at)
    return workspace.adopt(f"{CACHES}/{found[-1].name}") if found else None


def _written_at(path: Path) -> int:
    return path.stat().st_mtime_ns
