"""Stages of the fake pipeline (see fakes.py): small enough for a child process to start in no time."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from calibration.errors import CalibrationError, InvalidModelError
from calibration.execution.provider import Provider
from engine_builder.workspace.workspace import FileRef, StageContext


def inspect(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    plan = {"trials": 2, "seconds": 0.0, "fail": None, **_plan(request, context)}
    if plan["fail"] == "input":
        raise InvalidModelError("model: it is only a fake", fix="Send a real one.")

    def work() -> dict[str, object]:
        time.sleep(float(str(plan.get("inspect_seconds", 0.0))))
        return plan

    return _recorded(request, work)


def trial(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    plan = {"seconds": 0.0, "fail": None, **_plan(request, context)}

    def work() -> dict[str, object]:
        (context.scratch / "unfinished").write_text("left behind unless it is removed")
        prepared = request.get("prepared")
        if isinstance(prepared, Mapping):
            assert context.workspace.has(FileRef(str(prepared["file"]), str(prepared["sha256"])))
            _append(request, "taken")
        else:
            time.sleep(float(str(plan.get("prepare_seconds", 0.0))))
        seconds = plan["seconds"]
        of_this = seconds[int(str(request["name"]).removeprefix("trial/"))] if isinstance(seconds, list) else seconds
        for step in range(10):
            context.progress(step / 10, "working")
            time.sleep(float(str(of_this)) / 10)
        if plan["fail"] == "crash":
            os.abort()
        if plan["fail"] == "fills":
            with (context.scratch / "filler").open("wb", buffering=0) as file:
                while file.write(bytes(2**16)):
                    pass
        return {}

    return _recorded(request, work)


def prepare(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    """Do what a trial does first, before it is asked for."""
    plan = {"prepare_seconds": 0.0, "fail_ahead": False, **_plan(request, context)}
    seconds = float(str(plan.get("ahead_seconds", plan["prepare_seconds"])))

    def work() -> dict[str, object]:
        (context.scratch / "unfinished").write_text("left behind unless it is removed")
        for _ in range(10):
            time.sleep(seconds / 10)
        assert (context.scratch / "unfinished").exists()  # the trial beside it has not removed it
        if plan["fail_ahead"]:
            os.abort()
        model = context.workspace.path(_model(request)).read_bytes()  # so that no other job has the same bytes
        ref = context.workspace.write_bytes(f"{request['name']}/engine", str(request["name"]).encode() + model)
        return {"result": {"file": ref.file, "sha256": ref.sha256}, "seconds": 0.0}

    return _recorded(request, work)


def probe(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    """Return the squares of numbers, and what they were measured with: of its own, or those that parts found put together."""
    plan = {"seconds": 0.0, "fail_on": None, **_plan(request, context)}
    provider = str(request.get("provider", Provider.CPU.value))
    parts = request["parts"]
    assert isinstance(parts, list)
    if parts:
        numbers = [number for part in parts for number in part["squares"]]
        providers = dict(sum((Counter(part["providers"]) for part in parts), Counter[str]()))
        return _recorded(request, lambda: {"result": {"squares": numbers, "providers": providers}, "seconds": 0.0})

    def work() -> dict[str, object]:
        _append(request, f"with {provider}")
        if plan["fail_on"] == provider:
            raise CalibrationError("an operator has no kernel", fix="Use another one.")
        found = []
        for number in range(int(str(request["start"])), int(str(request["stop"]))):
            (context.scratch / "unfinished").write_text("left behind unless it is removed")
            time.sleep(float(str(plan["seconds"])))
            assert (context.scratch / "unfinished").exists()  # another part has not removed it
            found.append(number**2)
        return {"result": {"squares": found, "providers": {provider: 1}}, "seconds": 0.0}

    return _recorded(request, work)


def report(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    model = context.workspace.path(_model(request)).read_bytes()
    metric = request.get("metric")
    judge = b"" if metric is None else b" scored by " + context.workspace.path(_model({"model": metric})).read_bytes()
    files = {
        "engine": context.workspace.write_bytes("engine.onnx", b"engine of " + model + judge),
        "report": context.workspace.write_json("report.json", {"fake": True}),
        "html": context.workspace.write_bytes("report.html", b"<p>fake</p>"),
        "log": context.workspace.adopt("log.txt"),
    }
    return _recorded(request, lambda: {name: {"file": ref.file, "sha256": ref.sha256} for name, ref in files.items()})


def _recorded(request: Mapping[str, object], work: Callable[[], dict[str, object]]) -> dict[str, object]:
    _append(request, "begin")
    result = work()
    _append(request, "end")
    return result


def _append(request: Mapping[str, object], event: str) -> None:
    with Path(str(request["record"])).open("a") as file:
        file.write(f"{event} {request['name']} {os.getpid()}\n")


def _plan(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    return dict(json.loads(context.workspace.path(_model(request)).read_bytes()))


def _model(request: Mapping[str, object]) -> FileRef:
    model = request["model"]
    assert isinstance(model, Mapping)
    return FileRef(str(model["file"]), str(model["sha256"]))


STAGES = {"inspect": inspect, "prepare": prepare, "probe": probe, "trial": trial, "report": report}
