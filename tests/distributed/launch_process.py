"""Runs one real process of several: ``python -m tests.distributed.launch_process ROLE PORT RECORD VERSION``.

With the fake pipeline in that version, or as the version "real" with the real one.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

from calibration.errors import OptimizerError
from service.api.app import serve
from service.database.role import Role
from service.distributed.worker_process import work_until_stopped
from service.jobs.resources import Pipeline, open_deps
from service.settings import settings_from_environment
from service.worker.child_process import STAGE_TABLE
from tests.fakes import FAKE_PREPARATIONS, FAKE_SPLITS, FakePipeline

REAL = "real"


def main() -> None:
    role, port, record, version = Role(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    settings = dataclasses.replace(settings_from_environment(os.environ), port=port)
    is_real = version == REAL
    pipeline = None if is_real else _fake_pipeline(record, version)
    gpu, probes = (os.environ.get(name) if role is Role.GPU else None for name in ("FAKE_GPU", "FAKE_PROBES"))
    stages = STAGE_TABLE if is_real else "tests.fake_stages"
    try:
        deps = open_deps(settings, pipeline=pipeline, stages=stages, role=role, gpu=gpu, probes=probes)
    except OptimizerError as error:
        sys.stderr.write(f"error: {error.detail}\nfix: {error.fix}\n")
        sys.exit(1)
    if role.answers:
        serve(settings, deps, role=role)
    else:
        work_until_stopped(settings, role, deps)


def _fake_pipeline(record: Path, version: str) -> Pipeline:
    kept = frozenset(os.environ.get("FAKE_KEPT", "").split())
    return Pipeline(version, FakePipeline(record).optimize, kept, frozenset({"trial"}), FAKE_SPLITS, FAKE_PREPARATIONS)


if __name__ == "__main__":
    main()
