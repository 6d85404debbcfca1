"""Runs the misbehaving stages, each in a process of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from service.worker.child_process import StageLimits, run_in_child
from service.worker.warm_parent import WarmParent

STAGES = "tests.engine_builder.misbehaving_stages"
LIMITS = StageLimits(memory_bytes=2 * 2**30, seconds=20)


class Run(Protocol):
    def __call__(
        self,
        stage: str,
        workspace: Path,
        request: Mapping[str, object] | None = None,
        *,
        limits: StageLimits = LIMITS,
        on_progress: Callable[[float, str], None] = lambda fraction, message: None,
        should_cancel: Callable[[], bool] = lambda: False,
    ) -> dict[str, object]:
        """Run a stage of the misbehaving ones."""


def running(parent: WarmParent | None) -> Run:
    def run(
        stage: str,
        workspace: Path,
        request: Mapping[str, object] | None = None,
        *,
        limits: StageLimits = LIMITS,
        on_progress: Callable[[float, str], None] = lambda fraction, message: None,
        should_cancel: Callable[[], bool] = lambda: False,
    ) -> dict[str, object]:
        return run_in_child(
            stage,
            request or {},
            workspace,
            limits=limits,
            on_progress=on_progress,
            should_cancel=should_cancel,
            stages=STAGES,
            parent=parent,
        )

    return run


@contextlib.contextmanager
def warm(stages: str = STAGES) -> Iterator[WarmParent]:
    """Give a warm parent that ends with the block."""
    parent = WarmParent(stages)
    try:
        yield parent
    finally:
        parent.close()
