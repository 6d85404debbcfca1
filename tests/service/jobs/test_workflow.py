"""From which queue a process takes workflows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from service.database.role import Role
from service.jobs.execution.placement import gpu_queue
from service.jobs.resources import Deps
from service.jobs.workflow import QUEUE, Workflows

NOBODY = None
WITH_GPU = SimpleNamespace(member=SimpleNamespace(gpu="L4"))
WITHOUT_GPU = SimpleNamespace(member=SimpleNamespace(gpu=None))


@pytest.mark.parametrize(
    ("role", "membership", "queues"),
    [
        (Role.ALL, NOBODY, (QUEUE,)),
        (Role.CPU, WITHOUT_GPU, (QUEUE,)),
        (Role.GPU, WITH_GPU, (gpu_queue("L4"),)),
        (Role.API, WITHOUT_GPU, ()),
        (Role.API, NOBODY, ()),
    ],
)
def test_only_who_is_there_for_jobs_takes_them(role: Role, membership: object, queues: tuple[str, ...]) -> None:
    deps = cast("Deps", SimpleNamespace(role=role, membership=membership))
    assert Workflows(deps).queues == queues
