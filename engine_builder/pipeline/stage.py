"""What a stage is, and the one place that turns its request and its result into JSON and back.

Whoever runs stages (a durable step, a child process, a cache) handles JSON only and knows none of the types.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from calibration.codec import as_object, json_from_value, value_from_json
from calibration.process.memory import keep_little_free_memory
from engine_builder.workspace.workspace import StageContext

Q = TypeVar("Q")
R = TypeVar("R")
Q_contra = TypeVar("Q_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

StageJson = Callable[[Mapping[str, object], StageContext], dict[str, object]]  # a stage as a child process runs it


@dataclass(frozen=True, slots=True)
class Stage(Generic[Q, R]):
    """A row of the table of stages."""

    name: str
    entry: str  # "module:function", a ``StageFunction``; imported where the stage runs, which pays for its own imports only
    request: type[Q]
    result: type[R]
    progress: tuple[float, float]  # the part of the job's progress, 0..1
    is_kept: bool = False  # the result depends on the request alone, not on the machine's mood, and may be kept for other jobs
    imports_much: bool = False  # that no other stage needs: it is left to the stage where a process forks the stages of one job
    times_engines: bool = False  # memory is then managed as where the engines will be used
    took: Callable[[R], float] | None = None  # seconds of the work that a result stands for, where some of it may have been done before


class StageFunction(Protocol[Q_contra, R_co]):
    """What the module of a stage offers."""

    def __call__(self, request: Q_contra, context: StageContext, /) -> R_co:
        """Do the stage's work.

        Args:
            request: What the stage reads.
            context: Where files go, and whom to tell of progress.

        Raises:
            OptimizerError: The user's input does not fit, or the work failed.
        """


class RunStage(Protocol):
    """Runs a stage to its end in a child process, or returns what it returned when it ran before."""

    def __call__(self, name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> Mapping[str, object]:
        """Return ``{"result": ..., "seconds": ...}`` as ``in_child`` does.

        Args:
            name: Unique in the job and the same on every replay.
            stage: The stage's name in the table.
            request: Plain JSON.
            span: The part of the job's progress, 0..1, that this run covers.

        Raises:
            OptimizerError: What the stage raised; an ``EngineError`` with the ``seconds`` that it took.
        """


def run(driver: RunStage, stage: Stage[Q, R], request: Q, *, key: str | None = None, span: tuple[float, float] | None = None) -> R:
    """Return what a stage gives for a request.

    Args:
        driver: Runs it.
        stage: Its row.
        request: What it reads.
        key: The run's name in the job; the stage's own where it runs once.
        span: The part of the job's progress; the row's by default.

    Raises:
        OptimizerError: What the stage raised.
    """
    answer = driver(key or stage.name, stage.name, as_object(json_from_value(request)), span or stage.progress)
    return value_from_json(stage.result, answer["result"])


def in_child(stage: Stage[Q, R]) -> StageJson:
    """Return the stage as a child process runs it: JSON in; the ``result`` as JSON and the ``seconds`` that it took out.

    The seconds are recorded with the result, so that a limit of seconds is compared with recorded figures, not with a clock. What was done
    before the stage was asked for counts with them (``Stage.took``).

    Args:
        stage: The stage's row.
    """

    def run_json(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
        start = time.perf_counter()
        if not stage.times_engines:
            keep_little_free_memory()
        module, name = stage.entry.split(":")
        function: StageFunction[Q, R] = getattr(importlib.import_module(module), name)
        result = function(value_from_json(stage.request, request), context)
        seconds = time.perf_counter() - start
        return {"result": json_from_value(result), "seconds": seconds if stage.took is None else max(seconds, stage.took(result))}

    return run_json
