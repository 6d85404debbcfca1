"""Runs a real server whose pipeline is the fake one: ``python -m tests.service.launch_server DATA_DIR PORT RECORD VERSION``."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from service.api.app import serve
from service.jobs.resources import Deps, Pipeline, open_deps
from service.settings import Settings, settings_from_environment
from tests.fakes import FakePipeline


def fake_deps(
    settings: Settings,
    record: Path,
    version: str = "fake-1",
    *,
    kept: frozenset[str] = frozenset(),
    clock: Callable[[], datetime] | None = None,
    rebuild: bool = False,
) -> Deps:
    pipeline = Pipeline(version=version, optimize=FakePipeline(record).optimize, kept_stages=kept)
    return open_deps(settings, pipeline=pipeline, stages="tests.fake_stages", clock=clock, rebuild=rebuild)


def main() -> None:
    data_dir, port, record, version = sys.argv[1:]
    settings = dataclasses.replace(settings_from_environment(os.environ), data_dir=Path(data_dir), port=int(port))
    serve(settings, fake_deps(settings, Path(record), version, kept=frozenset(os.environ.get("FAKE_KEPT", "").split())))


if __name__ == "__main__":
    main()
