"""Stand-ins for the slow or costly parts: a clock and a pipeline, whose stages are in fake_stages.py.

The fake pipeline is driven by its "model", a JSON text: ``{"trials": 3, "seconds": 0.1, "fail": null}``. Its stages run in real child
processes; each execution of one leaves a line in a record file, so that tests can count what ran and how often. A list of seconds has one
number for each trial.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from calibration.accuracy.kinds.part import JudgedOutput, Part
from calibration.accuracy.metrics import OutputKind
from calibration.codec import json_from_value, value_from_json
from engine_builder.errors import StageCrashedError
from engine_builder.pipeline.ahead.preparing import EarlyPart, Preparation
from engine_builder.pipeline.observer import Observer
from engine_builder.pipeline.optimize import JobRequest
from engine_builder.pipeline.parts import Split, even_parts
from engine_builder.pipeline.stage import RunStage
from engine_builder.stage_io.outcome import JobOutcome
from engine_builder.workspace.workspace import FileRef

TAKEN = JudgedOutput("y", (OutputKind.LOGITS,), (Part(OutputKind.LOGITS),), "its name", words="best class kept")


@dataclass
class FakeClock:
    """A clock that moves when told to."""

    now: datetime = field(default_factory=lambda: datetime(2026, 11, 23, 10, 0, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass(frozen=True)
class FakePipeline:
    """A pipeline of as many trials as its model says; a crashed trial is a failed one.

    Where the model says how long trials take without what was prepared for them (``prepare_seconds``), these are prepared
    (in ``ahead_seconds``, where that is not the same).
    """

    record: Path

    def optimize(self, job: JobRequest, run_stage: RunStage, observer: Observer) -> JobOutcome:
        common: dict[str, object] = {"record": str(self.record), "model": json_from_value(job.files.model)}
        if job.files.metric_model is not None:
            common["metric"] = json_from_value(job.files.metric_model)
        observer.entered("inspect", 0.0)
        plan = run_stage("inspect", "inspect", {**common, "name": "inspect"}, (0.0, 0.1))
        observer.judging([TAKEN])
        if "probes" in plan:
            run_stage("probe", "probe", {**common, "name": "probe", "start": 0, "stop": plan["probes"], "parts": []}, (0.1, 0.1))
        observer.entered("search", 0.1)
        trials: list[dict[str, object]] = []
        count = int(str(plan["trials"]))
        for index in range(count):
            name = f"trial/{index}"
            span = (0.1 + 0.8 * index / count, 0.1 + 0.8 * (index + 1) / count)
            foreseen = [{**common, "name": f"trial/{number}"} for number in _foreseen_numbers(plan, index, count)]
            observer.foreseen(lambda foreseen=foreseen: iter(foreseen))  # type: ignore[misc]
            try:
                run_stage(name, "trial", {**common, "name": name}, span)
                failure = None
            except StageCrashedError as error:
                failure = error.detail
            trials.append({"index": index, "fingerprint": f"f{index}", "met": failure is None, "failure": failure})
            observer.searched(trials, 0)
        if plan["fail"] == "bug":
            raise ZeroDivisionError("a bug in the pipeline")
        observer.entered("report", 0.9)
        made = run_stage("report", "report", {**common, "name": "report"}, (0.9, 1.0))
        files = {name: value_from_json(FileRef, ref) for name, ref in made.items()}
        return JobOutcome(
            result={"outcome": "improved", "engine": {"name": "engine.onnx"}},
            engine_name="engine.onnx",
            engine=files["engine"],
            artifacts={"report.json": files["report"], "report.html": files["html"], "log.txt": files["log"]},
        )


def _probe_parts(request: Mapping[str, object], most: int) -> tuple[Mapping[str, object], ...]:
    parts = even_parts(int(str(request["start"])), int(str(request["stop"])), 1, most)
    if len(parts) == 1:
        return (request,)
    return tuple({**request, "name": f"part/{start}-{stop}", "start": start, "stop": stop} for start, stop in parts)


def _probe_joined(request: Mapping[str, object], parts: Sequence[object]) -> Mapping[str, object]:
    return {**request, "name": "joined", "parts": list(parts)}


FAKE_SPLITS = {"probe": Split(_probe_parts, _probe_joined)}


def _foreseen_numbers(plan: Mapping[str, object], index: int, count: int) -> Sequence[int]:
    """Return which trials are said to be next: the right ones, or with ``guesses`` those that the plan says, for each trial."""
    guesses = plan.get("guesses")
    return range(index + 1, count) if guesses is None else guesses[index]  # type: ignore[index]


def _fake_part(request: Mapping[str, object]) -> EarlyPart:
    name = str(request["name"]).replace("trial", "ahead")
    return EarlyPart("prepare", {**request, "name": name}, name)


def _without_prepared(request: Mapping[str, object]) -> Mapping[str, object]:
    return {name: value for name, value in request.items() if name != "prepared"}


FAKE_PREPARATIONS = {"trial": Preparation(_fake_part, lambda request, result: {**request, "prepared": result}, _without_prepared)}


def fake_model(**plan: object) -> bytes:
    """Return the bytes of a model that gives this plan."""
    return json.dumps(plan).encode()


def executions(record: Path) -> list[str]:
    """Return what ran, in order: ``begin NAME PID`` and ``end NAME PID``."""
    return record.read_text().splitlines() if record.exists() else []
