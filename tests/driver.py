"""Runs whole jobs on small models: the real pipeline and the real stages, in this process and in a workspace of the test's own."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from calibration.accuracy.kinds.part import JudgedOutput
from calibration.codec import as_object, json_from_value, value_from_json
from engine_builder.backends.job_precisions import low_precisions
from engine_builder.backends.onnxruntime.product_times import FORMS, Shapes, Times
from engine_builder.backends.registry import BACKENDS, TargetContext, Targets, backend_for
from engine_builder.backends.target_checks import check_config, with_metric_model
from engine_builder.config.config import config_from_json
from engine_builder.config.inspect_settings import inspect_settings
from engine_builder.pipeline.optimize import JobRequest, optimize
from engine_builder.pipeline.stage import Stage, in_child
from engine_builder.pipeline.stage_table import CORRECT, INSPECT, RANGES, TABLE
from engine_builder.records.calibrated import Calibrated
from engine_builder.records.inspection import Inspection
from engine_builder.records.trial import FOLDED, Trial
from engine_builder.stage_io.engines import EngineJob, TrialRequest
from engine_builder.stage_io.measuring import CorrectRequest, InspectRequest, InspectResult, JobFiles, RangesRequest
from engine_builder.stage_io.outcome import JobOutcome
from engine_builder.stages.ranges import ranges
from engine_builder.stages.trial import trial
from engine_builder.stages.verdict import verdict
from engine_builder.timing import Timer, time_interleaved
from engine_builder.workspace.tree_removal import remove_tree
from engine_builder.workspace.workspace import FileRef, Workspace
from tests.fake_timer import FakeTimer
from tests.model_text import samples_for
from tests.undrawn_plots import undrawn_plots

Q = TypeVar("Q")
R = TypeVar("R")
Array = NDArray[Any]  # of the model's number types
Json = dict[str, object]
Samples = Mapping[str, Array] | bytes  # arrays by name, or the bytes of a file
QUANTIZED_IS_FASTER = FakeTimer(quantized_ms=1.0)
QUANTIZED_IS_SLOWER = FakeTimer(quantized_ms=4.0)
REAL_TIME = time_interleaved


def products_take(dynamic: float, eight: float, four: float) -> Callable[[Shapes], Times]:
    """Return made-up kernels: milliseconds of any products in each form, 1 in floats."""
    return lambda shapes: dict(zip(FORMS, (1.0, dynamic, eight, four), strict=True))


BLOCKS_DO_NOT_PAY = products_take(dynamic=0.4, eight=1.2, four=1.3)


@dataclass
class Driver:
    """A ``RunStage`` and an ``Observer``: runs each stage here, passes everything through JSON, and keeps what went by.

    ``broken`` is asked before each call, by its name, for an error to raise in its place.
    """

    workspace: Workspace
    timer: Timer = QUANTIZED_IS_FASTER
    is_drawn: bool = False  # whether the report's page has its plots, which take longer than a small job
    is_folding_faster: bool = False  # whether a fake timer tells the folded float model from the baseline: it would ship, being the safest
    broken: Callable[[str], Exception | None] = lambda name: None
    targets: Targets = field(default_factory=lambda: BACKENDS)
    kernels: Callable[[Shapes], Times] = BLOCKS_DO_NOT_PAY  # what products take in each form, where the user names no precisions
    calls: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)  # of progress
    entered_stages: list[str] = field(default_factory=list)
    noted_texts: list[str] = field(default_factory=list)
    trials: Sequence[Mapping[str, object]] = ()
    results: dict[str, Json] = field(default_factory=dict)

    def __call__(self, name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> Json:
        assert name not in self.calls, f"stage {name} was asked for twice"
        assert 0.0 <= span[0] <= span[1] <= 1.0
        self.calls.append(name)
        error = self.broken(name)
        if error is not None:
            raise error
        result = self.run_json(next(row for row in TABLE if row.name == stage), request)
        self.results[name] = result
        return result

    def run(self, stage: Stage[Q, R], request: Q) -> R:
        """Run one stage by itself, as often as is wanted."""
        answer = self.run_json(stage, as_object(json_from_value(request)))
        return value_from_json(stage.result, answer["result"])

    def run_json(self, stage: Stage[Q, R], request: Mapping[str, object]) -> Json:
        """Run one stage as a child process would: JSON in and out, a scratch folder that goes away."""
        # Where times are made up, an engine's kernels, which took other times, say nothing of it.
        own_trial = functools.partial(trial, is_profiled=self.timer is REAL_TIME)
        timed: Mapping[str, Callable[..., object]] = {"trial": own_trial, "verdict": verdict}
        scratch = self.workspace.root / "scratch-test"
        scratch.mkdir()
        try:
            workspace = Workspace(self.workspace.root, temporary=scratch)
            context = TargetContext(workspace, scratch, lambda fraction, message: self.messages.append(message), self.targets)
            start = time.perf_counter()
            if stage is RANGES:
                result = json_from_value(ranges(value_from_json(RANGES.request, _through_json(request)), context, measure=self.kernels))
            elif stage.name in timed:
                asked = value_from_json(stage.request, _through_json(request))
                is_untold = isinstance(asked, TrialRequest) and asked.proposed_by == FOLDED and not self.is_folding_faster
                timer = FakeTimer(2.0) if is_untold and isinstance(self.timer, FakeTimer) else self.timer
                result = json_from_value(timed[stage.name](asked, context, timer=timer))
            else:
                with undrawn_plots(self.is_drawn):
                    result = in_child(stage)(_through_json(request), context)["result"]
            return _through_json({"result": result, "seconds": time.perf_counter() - start})
        finally:
            remove_tree(scratch)

    def entered(self, stage: str, progress: float) -> None:
        self.entered_stages.append(stage)

    def judging(self, outputs: Sequence[JudgedOutput]) -> None:
        """Nothing to show."""

    def noted(self, text: str) -> None:
        self.noted_texts.append(text)

    def foreseen(self, requests: Callable[[], Iterator[Mapping[str, object]]]) -> None:
        """Nobody is idle who could begin them."""

    def searched(self, trials: Sequence[Mapping[str, object]], best: int | None) -> None:
        self.trials = list(trials)


@dataclass(frozen=True)
class Finished:
    """A job that came to its end."""

    driver: Driver
    outcome: JobOutcome
    model: FileRef  # the user's
    model_bytes: bytes  # as they were uploaded

    @property
    def result(self) -> Json:
        return dict(self.outcome.result)

    @property
    def verdict(self) -> Json:
        return cast(Json, self.result["verdict"])

    @property
    def chosen(self) -> Json:
        return cast(Json, self.result["chosen"])

    @property
    def baseline(self) -> Json:
        return cast(Json, self.result["baseline"])

    @property
    def engine(self) -> Path:
        return self.path(self.outcome.engine)

    @property
    def report(self) -> Json:
        return cast(Json, json.loads(self.path(self.outcome.artifacts["report.json"]).read_bytes()))

    @property
    def notes(self) -> str:
        return "\n".join(cast(Sequence[str], self.report["notes"]))

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The samples-first shape of each compared output."""
        with np.load(self.driver.workspace.root / "reference.npz") as arrays:
            return [arrays[str(index)].shape for index in range(len(arrays))]

    @property
    def judged(self) -> dict[str, JudgedOutput]:
        """How each compared output was taken, by name."""
        data = json.loads((self.driver.workspace.root / "inspection.json").read_bytes())
        return {one.name: one for one in value_from_json(Inspection, data).reference.judged}

    def path(self, ref: FileRef) -> Path:
        return self.driver.workspace.path(ref)


def run_job(
    folder: Path,
    model: onnx.ModelProto | bytes,
    calibration: Samples | None = None,
    validation: Samples | None = None,
    config: Mapping[str, object] | None = None,
    *,
    metric_model: onnx.ModelProto | None = None,
    timer: Timer = QUANTIZED_IS_FASTER,
    is_drawn: bool = False,
    is_folding_faster: bool = False,
    broken: Callable[[str], Exception | None] = lambda name: None,
    targets: Targets = BACKENDS,
    kernels: Callable[[Shapes], Times] = BLOCKS_DO_NOT_PAY,
) -> Finished:
    """Run a whole job.

    Args:
        folder: The job's workspace.
        model: The user's model, or the bytes of its file.
        calibration: The samples; 40 random samples that fit the model by default.
        validation: The same; none by default, so that a part of the calibration samples is held out.
        config: As a user writes it.
        metric_model: The user's own metric.
        timer: Times the engines.
        is_drawn: As for ``Driver``.
        is_folding_faster: As for ``Driver``.
        broken: Asked for an error before each stage.
        targets: What engines can be built for.
        kernels: As for ``Driver``.
    """
    driver, job = submitted(folder, model, calibration, validation, config, metric_model=metric_model)
    driver.kernels = kernels
    driver.timer, driver.broken, driver.targets = timer, broken, targets
    driver.is_drawn, driver.is_folding_faster = is_drawn, is_folding_faster
    check_config(job.config, table=targets)
    model_bytes = driver.workspace.path(job.files.model).read_bytes()
    return Finished(driver, optimize(job, driver, driver, targets=targets), job.files.model, model_bytes)


def submitted(
    folder: Path,
    model: onnx.ModelProto | bytes,
    calibration: Samples | None = None,
    validation: Samples | None = None,
    config: Mapping[str, object] | None = None,
    *,
    metric_model: onnx.ModelProto | None = None,
) -> tuple[Driver, JobRequest]:
    """Return a driver and a job whose files are in the workspace; see ``run_job``."""
    if calibration is None:
        assert isinstance(model, onnx.ModelProto)
        calibration = samples_for(model, 40)
    workspace = Workspace(folder)
    files = JobFiles(
        model=workspace.write_bytes("model/model.onnx", model if isinstance(model, bytes) else model.SerializeToString()),
        calibration=_written(workspace, "calibration/calibration.npz", calibration),
        validation=None if validation is None else _written(workspace, "validation/validation.npz", validation),
        metric_model=None if metric_model is None else workspace.write_bytes("metric/metric.onnx", metric_model.SerializeToString()),
    )
    settings = with_metric_model(config_from_json({} if config is None else config), is_given=metric_model is not None)
    return Driver(workspace), JobRequest(files, settings)


def inspected(driver: Driver, job: JobRequest) -> InspectResult:
    """Run the first stage of a job."""
    return driver.run(INSPECT, InspectRequest(job.files, inspect_settings(job.config)))


def ranged(
    folder: Path, model: onnx.ModelProto, calibration: Samples | None = None, validation: Samples | None = None, config: Json | None = None
) -> tuple[Driver, EngineJob]:
    """Run a job up to its ranges and return the driver and what later requests are made of."""
    driver, job = submitted(folder, model, calibration, validation, config)
    found = inspected(driver, job)
    settings = job.config
    quantized = low_precisions(settings, backend_for(settings.target, settings.gpu).capabilities)
    only_paying = settings.precisions is None
    wanted = RangesRequest(
        found.model, found.calibration, settings.calibration.method, quantized, settings.target, settings.gpu, only_paying
    )
    measured = driver.run(RANGES, wanted)
    calibrated = Calibrated(found.model, found.calibration, measured.ranges, measured.eligible)
    return driver, EngineJob(job.config, found.inspection, found.baseline, calibrated)


def correct_request(job: EngineJob) -> CorrectRequest:
    """Return what asks for the corrections of a job."""
    settings, config = job.config.calibration, job.config
    return CorrectRequest(job.calibrated, settings.method, settings.second_order, config.search.seed, config.target, config.gpu)


def with_corrections(driver: Driver, job: EngineJob) -> EngineJob:
    """Return a job with its corrections."""
    made = driver.run(CORRECT, correct_request(job))
    return replace(job, calibrated=replace(job.calibrated, corrections=made.corrections))


def inspection_of(driver: Driver, job: EngineJob) -> Inspection:
    """Return the inspection of a job."""
    return driver.workspace.read_value(Inspection, job.inspection)


def plain_outputs(model: Path | bytes, samples: Mapping[str, Array], batch: int) -> list[Array]:
    """Return the outputs of a model for all samples in plain onnxruntime, as a user would run it, ``batch`` samples a call."""
    session = onnxruntime.InferenceSession(model if isinstance(model, bytes) else str(model), providers=["CPUExecutionProvider"])
    count = len(next(iter(samples.values())))
    calls = [session.run(None, {name: array[i : i + batch] for name, array in samples.items()}) for i in range(0, count, batch)]
    return [np.concatenate(parts) for parts in zip(*calls, strict=True)]


def trials_of(finished: Finished) -> tuple[Trial, ...]:
    """Return the trials in the order in which they were made."""
    return value_from_json(tuple[Trial, ...], finished.report["trials"])


def _written(workspace: Workspace, name: str, samples: Samples) -> FileRef:
    return workspace.write_bytes(name, samples) if isinstance(samples, bytes) else workspace.write_arrays(name, **samples)


def _through_json(value: object) -> Json:
    return cast(Json, json.loads(json.dumps(value, allow_nan=False)))
