"""Optimizes a model on this machine, in this process's own name: each stage in a child process, as the command ``optimize`` does it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from calibration.errors import InvalidMetricError
from service.intake.common_keys import CommonKeys, check_arguments, config_with
from service.python.events import Event, NewTrials, ProgressEvent, StageEvent
from service.python.given import GivenModel, GivenSamples, metric_file, model_file, output_folder, samples_file
from service.python.result import Result, result_from_json
from service.settings import settings_from_environment
from service.worker.child_process import StageLimits

if TYPE_CHECKING:
    from calibration.accuracy.kinds.part import JudgedOutput
    from engine_builder.pipeline.observer import Observer
    from engine_builder.pipeline.optimize import JobRequest
    from engine_builder.pipeline.stage import RunStage
    from engine_builder.stage_io.outcome import JobOutcome
    from service.local.asked_function import MetricFunction

logger = logging.getLogger(__name__)

OnEvent = Callable[[Event], object]
_REPORT = "report.html"


def optimize(
    model: GivenModel,
    calibration: GivenSamples,
    validation: GivenSamples | None = None,
    *,
    output: str | os.PathLike[str],
    config: Mapping[str, object] | None = None,
    metric: str | MetricFunction | None = None,
    metric_model: GivenModel | None = None,
    batched: bool | None = None,
    on_event: OnEvent | None = None,
    keep: bool = True,
    **keys: Unpack[CommonKeys],
) -> Result:
    """Optimize a model on this machine, without a server, and return what was found.

    An interrupt (Ctrl-C) ends all child processes, removes what is unfinished, and comes out as
    ``KeyboardInterrupt``; with ``keep`` the same call goes on from there.

    Args:
        model: A path, the bytes of an .onnx file, or an ``onnx.ModelProto``.
        calibration: Samples: a path, a dict of arrays whose first axis counts samples, or an iterable of samples or batches (arrays,
            tuples of input and label, dicts), which is read once and never held in memory.
        validation: Samples for accuracy, the same; without it a part of the calibration set is held out.
        output: Folder for the engine, the report and the other files.
        config: The configuration; every key is optional.
        metric: What the budget is stated in, such as "top1"; or a function of your own, ``(outputs, labels)`` or ``(outputs, labels,
            reference)``: dicts of arrays by the names of the model's outputs, each (samples, ...), the labels or None, and the float
            model's outputs. It returns one score a sample, 0 to 1, where 1 is perfect. It is called in this thread; nothing is kept then.
        metric_model: A metric of your own as an ONNX model.
        batched: Whether an iterable gives batches; None: told by the shapes of the model's inputs.
        on_event: Called with what happens, in this thread: ``StageEvent``, ``TrialEvent``, ``ProgressEvent``.
        keep: Keep measurements in this user's cache for further runs, and what an interrupted run had done.
        **keys: Keys of the configuration, in the place of those in ``config``.

    Raises:
        InputError: Something that is given cannot be used.
        OptimizerError: A stage failed.
    """
    check_arguments(keys, ("metric", "metric_model", "config", "validation", "batched", "on_event", "keep"))
    named = metric if isinstance(metric, str) else None
    job_config = config_with(config or {}, {**keys, "metric": named})
    target = output_folder(output)
    from engine_builder.backends.target_checks import check_config, with_metric_model
    from service.local.asked_function import AskedFunction
    from service.local.local_job import LocalJob, optimize_locally  # these load onnx
    from service.local.reuse import default_cache_folder

    asked = None if metric is None or isinstance(metric, str) else AskedFunction(metric)
    if asked is not None and metric_model is not None:
        raise InvalidMetricError("metric: a function and a metric model found, one of them expected", fix="Leave one of them out.")
    check_config(with_metric_model(job_config, is_given=metric_model is not None or asked is not None))  # samples may take long to come
    settings = settings_from_environment(os.environ)
    with TemporaryDirectory(prefix="onnx-trt-optimizer-") as temporary, asked or nullcontext():
        folder = Path(temporary)
        model_path = model_file(model, folder)
        job = LocalJob(
            model=model_path,
            calibration=samples_file(calibration, model_path, folder, "calibration", batched=batched),
            validation=None if validation is None else samples_file(validation, model_path, folder, "validation", batched=batched),
            config=job_config,
            output=target,
            limits=StageLimits(memory_bytes=settings.stage_memory_bytes, seconds=settings.stage_seconds),
            cache=default_cache_folder(os.environ) if keep and settings.cache_bytes and asked is None else None,
            cache_bytes=settings.cache_bytes,
            metric_model=None if metric_model is None else metric_file(metric_model, folder),
            asked=asked,
        )
        try:
            with _EventView(on_event) as view:
                found = optimize_locally(job, view, pipeline=_Told(on_event))
        except InvalidMetricError as error:
            if asked is None or asked.error is None:
                raise
            raise error from asked.error  # with the place in the caller's own code
    return result_from_json(found, engine=target / _engine_name(found), report=target / _REPORT)


class _EventView:
    """The ``ProgressView`` of a call from Python: progress as events, lines to the log."""

    def __init__(self, on_event: OnEvent | None) -> None:
        self._on_event = on_event
        self._shown = ProgressEvent(-1.0)

    def update(self, fraction: float, message: str) -> None:
        event = ProgressEvent(max(fraction, self._shown.progress), message)
        if self._on_event is not None and event != self._shown:
            self._on_event(event)
        self._shown = event

    def line(self, text: str) -> None:
        logger.info("%s", text.strip())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return


class _Told:
    """The pipeline, which tells of stages and trials by events too."""

    def __init__(self, on_event: OnEvent | None) -> None:
        self._on_event = on_event

    def __call__(self, request: JobRequest, run_stage: RunStage, observer: Observer) -> JobOutcome:
        from engine_builder.pipeline.optimize import optimize as run_pipeline

        return run_pipeline(request, run_stage, observer if self._on_event is None else _Observer(observer, self._on_event))


class _Observer:
    """Tells another observer, and by events."""

    def __init__(self, other: Observer, on_event: OnEvent) -> None:
        self._other = other
        self._on_event = on_event
        self._stage: str | None = None
        self._trials = NewTrials()

    def entered(self, stage: str, progress: float) -> None:
        if stage != self._stage:
            self._stage = stage
            self._on_event(StageEvent(stage, progress))
        self._other.entered(stage, progress)

    def judging(self, outputs: Sequence[JudgedOutput]) -> None:
        self._other.judging(outputs)

    def noted(self, text: str) -> None:
        self._other.noted(text)

    def foreseen(self, requests: Callable[[], Iterator[Mapping[str, object]]]) -> None:
        self._other.foreseen(requests)

    def searched(self, trials: Sequence[Mapping[str, object]], best: int | None) -> None:
        self._other.searched(trials, best)
        for event in self._trials.of(trials):
            self._on_event(event)


def _engine_name(result: Mapping[str, object]) -> str:
    engine = result["engine"]
    assert isinstance(engine, Mapping)
    return str(engine["name"])
