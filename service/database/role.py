"""What a process is for, where several share the work."""

from __future__ import annotations

import enum


class Role(enum.StrEnum):
    """What a process is for."""

    ALL = "all"  # answers callers and runs jobs
    API = "api"  # answers callers
    CPU = "cpu"  # runs jobs, with those of their stages that need no GPU
    GPU = "gpu"  # runs stages on one GPU

    @property
    def answers(self) -> bool:
        """Whether it listens for callers."""
        return self in {Role.ALL, Role.API}

    @property
    def runs_stages(self) -> bool:
        """Whether it runs any stages of jobs."""
        return self is not Role.API

    @property
    def takes_jobs(self) -> bool:
        """Whether it takes jobs from the line."""
        return self in {Role.ALL, Role.CPU}
