"""Which stored files requests are using just now, so that none is removed between its arrival and the job that needs it."""

from __future__ import annotations

import threading
from collections import Counter


class UploadsInUse:
    """Counts uses by tenant and digest. Safe to share between threads; whoever removes files holds ``lock`` while it looks and removes."""

    def __init__(self) -> None:
        """Know of none yet."""
        self.lock = threading.Lock()
        self._counting = threading.Lock()  # never held for long: uses end on the thread that serves all requests
        self._uses: Counter[tuple[str, str]] = Counter()

    def begin(self, tenant: str, sha256: str) -> None:
        """Count a use; waits for a removal that goes on."""
        with self.lock, self._counting:
            self._uses[tenant, sha256] += 1

    def end(self, tenant: str, uses: Counter[str]) -> None:
        """Take uses back, so many of each digest."""
        with self._counting:
            self._uses -= Counter({(tenant, sha256): count for sha256, count in uses.items()})

    def by_tenant(self, tenant: str, sha256: str) -> int:
        """Return how many uses a tenant makes of a file; called with ``lock`` held."""
        with self._counting:
            return self._uses[tenant, sha256]

    def by_anyone(self, sha256: str) -> int:
        """Return how many uses all tenants make of a file; called with ``lock`` held."""
        with self._counting:
            return sum(count for (_, used), count in self._uses.items() if used == sha256)
