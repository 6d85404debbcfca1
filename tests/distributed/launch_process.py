"""Runs one real process of several, with the fake pipeline: ``python -m tests.distributed.launch_process ROLE PORT RECORD VERSION``."""

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
from tests.fakes import FAKE_SPLITS, FakePipeline


def main() -> None:
    role, port, record, version = Role(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    settings = dataclasses.replace(settings_from_environment(os.environ), port=port)
    kept = frozenset(os.environ.get("FAKE_KEPT", "").split())
    gpu_stages = frozenset({"trial"})
    pipeline = Pipeline(version, FakePipeline(record).optimize, kept_stages=kept, gpu_stages=gpu_stages, splits=FAKE_SPLITS)
    gpu = os.environ.get("FAKE_GPU") if role is Role.GPU else None
    try:
        deps = open_deps(settings, pipeline=pipeline, stages="tests.fake_stages", role=role, gpu=gpu)
    except OptimizerError as error:
        sys.stderr.write(f"error: {error.detail}\nfix: {error.fix}\n")
        sys.exit(1)
    if role.answers:
        serve(settings, deps, role=role)
    else:
        work_until_stopped(settings, role, deps)


if __name__ == "__main__":
    main()
