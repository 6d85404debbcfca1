"""Kept results of stages, which tenants share unless one is set apart.

An entry is found by content: whoever has the same model and samples is spared a measurement. That tells a tenant one thing of others, by
the time it takes: that somebody measured the same bytes before. A tenant that shares nothing has entries that only its own jobs find.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from engine_builder.workspace.workspace import Workspace
from service.worker.stage_cache import StageCache


class MeasurementCache:
    """The caches of all tenants, in one folder of one size. Safe to share between threads."""

    def __init__(self, cache_of: Callable[[str | None], StageCache], tenant_apart: Callable[[str], str | None]) -> None:
        """Make one.

        Args:
            cache_of: Returns the cache of a tenant that is set apart, or with None the one that all others share.
            tenant_apart: Returns the tenant of a job, if it is set apart.
        """
        self._cache_of = cache_of
        self._tenant_apart = tenant_apart
        self._opening = threading.Lock()
        self._caches: dict[str | None, StageCache] = {None: cache_of(None)}

    def keeps(self, stage: str) -> bool:
        """Whether results of this stage are kept for further jobs."""
        return self._of(None).keeps(stage)

    def run(
        self, stage: str, request: Mapping[str, object], workspace: Workspace, compute: Callable[[], Mapping[str, object]]
    ) -> Mapping[str, object]:
        """Return the result that is kept for the job in this workspace, whose folder has the job's id, or compute and keep it."""
        return self._of(self._tenant_apart(workspace.root.name)).run(stage, request, workspace, compute)

    def _of(self, tenant: str | None) -> StageCache:
        with self._opening:
            if tenant not in self._caches:
                self._caches[tenant] = self._cache_of(tenant)
            return self._caches[tenant]
