"""The steps of recorded jobs, and how long each took: what the simulated jobs are made of.

They lie in ``recorded_jobs.json``, as ``benchmarks.sizes`` wrote them:
whole jobs on networks of 45 MB to 1.1 GB, recorded with the CPU engine. A step's seconds are the
CPU seconds of its process, which computes on one thread; those of stages that ran several times are shared equally. Stages that build or
time engines stand for the same stages on a GPU. No job was recorded on a GPU yet.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine_builder.pipeline.stage_table import ENGINE_STAGES, TABLE

SOURCES = (Path(__file__).with_name("recorded_jobs.json"),)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a job: its stage and how many seconds it computes."""

    stage: str
    seconds: float

    @property
    def on_gpu(self) -> bool:
        """Whether the worker of a GPU runs it, where the job is for one."""
        return self.stage in ENGINE_STAGES


@dataclass(frozen=True, slots=True)
class RecordedJob:
    """A job that was recorded: its network, and its steps in their order."""

    network: str
    steps: tuple[Step, ...]

    def seconds(self, *, on_gpu: bool) -> float:
        """Return how long its steps of one kind took together."""
        return sum(step.seconds for step in self.steps if step.on_gpu is on_gpu)


def recorded_jobs(sources: tuple[Path, ...] = SOURCES) -> tuple[RecordedJob, ...]:
    """Return the jobs of some files that ``benchmarks.sizes`` wrote."""
    return tuple(
        RecordedJob(job["name"], tuple(_steps(job["stages"])))
        for source in sources
        for job in json.loads(source.read_text(encoding="utf-8"))["jobs"]
    )


def _steps(stages: Mapping[str, Mapping[str, float]]) -> Iterator[Step]:
    """Yield the steps in the order in which a job runs them: two trials come before the analysis, all others after it."""
    for stage in (*_FIRST, "trial", *_ANALYSIS, "later trials", *_LAST):
        name = "trial" if stage == "later trials" else stage
        # Linux cuts the names of processes, by which the stages were recorded, at 15 characters.
        found = stages.get(f"stage {name}"[:15])
        if found is None:
            continue
        runs = round(found["runs"])
        early = min(runs, _EARLY_TRIALS) if name == "trial" else runs
        yield from [Step(name, round(found["cpu_seconds"] / runs, 3))] * (runs - early if stage == "later trials" else early)


_NAMES = tuple(stage.name for stage in TABLE)
_FIRST = _NAMES[: _NAMES.index("sensitivity")]
_ANALYSIS = _NAMES[_NAMES.index("sensitivity") : _NAMES.index("trial")]
_LAST = _NAMES[_NAMES.index("trial") + 1 :]
_EARLY_TRIALS = 2
