"""The functions that do a job's work, by name: each (JSON request, context) -> JSON result, run in a child process.

Every result also says how many ``seconds`` the stage took, so that a budget of seconds is compared with recorded figures, not with a clock.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from typing import cast

from calibration.process.memory import keep_little_free_memory
from engine_builder.workspace.workspace import StageContext

Stage = Callable[[Mapping[str, object], StageContext], dict[str, object]]


def _stage(module: str, name: str, *, times_engines: bool = True) -> Stage:
    """Return the stage ``name`` of a module that is imported when the stage runs: a child pays for what its own stage needs.

    One that times no engine keeps little free memory; where engines are timed, memory is managed as where they will be used.
    """

    def run(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
        start = time.perf_counter()
        if not times_engines:
            keep_little_free_memory()
        stage = cast(Stage, getattr(importlib.import_module(module), name))
        return {**stage(request, context), "seconds": time.perf_counter() - start}

    return run


STAGES: Mapping[str, Stage] = {
    "inspect": _stage("engine_builder.stages.inspect", "inspect", times_engines=False),
    "ranges": _stage("engine_builder.stages.probe", "ranges", times_engines=False),
    "baseline": _stage("engine_builder.stages.baseline", "baseline"),
    "repair": _stage("engine_builder.stages.correct", "repair", times_engines=False),
    "sensitivity": _stage("engine_builder.stages.probe", "sensitivity", times_engines=False),
    "hessian": _stage("engine_builder.stages.probe", "hessian", times_engines=False),
    "dependency": _stage("engine_builder.stages.probe", "dependency", times_engines=False),
    "orders": _stage("engine_builder.stages.probe", "orders"),
    "trial": _stage("engine_builder.stages.trial", "trial"),
    "forecast": _stage("engine_builder.stages.predict", "forecast"),
    "rebuild": _stage("engine_builder.stages.rebuild", "rebuild"),
    "verdict": _stage("engine_builder.stages.verdict", "verdict"),
    "report": _stage("engine_builder.stages.report", "report"),
}
