"""The stage ``baseline``: builds what engines must beat where that is not the user's own file: the model in baseline precision.

Its accuracy is measured like that of every engine, against the user's model in float32: what it loses is never credited to a low
precision. Where it loses more than the budget allows it gets a float fallback first (``engine_builder.baseline.float_fallback``); every
later engine then has the fallback precisions wherever it has no lower one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from calibration.data.dataset import CalibrationSet, load_saved
from calibration.graph.layers import LayerKind
from calibration.number_formats.precision import Precision
from calibration.onnx_model.model_io import read_model
from engine_builder.backends.achieved_precision import AchievedPrecision, achieved_precisions
from engine_builder.backends.base import Backend, Engine, Runner
from engine_builder.baseline.float_fallback import Tools, Tried, with_float_fallback
from engine_builder.baseline.float_regions import ProbedBlock, probe_blocks
from engine_builder.engines.factory import Building, building_backend
from engine_builder.engines.quantized_engine import EXPLICIT_NAME, EngineRecipe, build
from engine_builder.errors import EngineError, RefusedModelError, UnsupportedModelError
from engine_builder.evaluation.measurement import (
    LAYERS_NAME,
    MAX_RUNS,
    MIN_RUNS,
    TRIAL_SECONDS,
    fits,
    keep_layers,
    scored_engine,
    timing_feeds,
    write_achieved,
    write_scores,
)
from engine_builder.records.calibrated import read_ranges
from engine_builder.records.float_plan import FloatAttempt, FloatPlan
from engine_builder.records.inspection import Inspection
from engine_builder.reporting.baseline_words import fallback_in_words
from engine_builder.stage_io.engines import BaselineRequest, BaselineResult, EngineJob
from engine_builder.timed_enough import EachKnown
from engine_builder.timing import MIN_GAIN, Timer, TimingPlan, time_interleaved
from engine_builder.workspace.model_files import keep_model
from engine_builder.workspace.workspace import StageContext

FOLDER, FINAL_FOLDER = "baseline", "final-baseline"
_BF16_SINCE = (8, 0)  # compute capability
_COARSE = (Precision.FP16, Precision.BF16)
_NAMED = 8  # blocks that a note names
MOST_SECONDS = (
    2400.0  # by when the last fallback is built, but for FP32: a stage may take an hour, and leaves nothing where it takes longer
)


def baseline(
    request: BaselineRequest,
    context: StageContext,
    *,
    timer: Timer = time_interleaved,
    building: Building = building_backend,
    clock: Callable[[], float] = time.perf_counter,
) -> BaselineResult:
    """Return the engine, and the inspection, which now knows what that has.

    Args:
        request: The job; whether this is the baseline that ships and not the search's, whose precisions it has.
        context: Where files go.
        timer: Times baselines with fallbacks.
        building: Gives the backend.
        clock: Seconds from any origin.

    Raises:
        UnsupportedModelError: The target's builder refuses the model in its baseline precision and in float32.
        BuildError: It cannot be built for another reason.
        EngineError: What it built fails when it runs.
    """
    final, workspace = request.final, context.workspace
    folder = FINAL_FOLDER if final else FOLDER
    bench = _Bench(request.job, context, timer, building, clock, final=final)
    inspection, backend = bench.inspection, bench.backend
    own = bench.build_and_score(bench.found_plan()) if final else bench.own()
    context.progress(0.5, "baseline built" if own.engine is not None else "the builder refuses the baseline")
    kept, fallback = own, inspection.baseline.fallback
    if not own.attempt.fits and not final:
        if own.engine is None:
            bench.check_builds(own)
        kept, fallback = with_float_fallback(own, Tools(bench.try_plan, bench.probe, bench.times), has_bf16=_has_bf16(backend))
    engine, scores = kept.engine, kept.scores
    assert engine is not None  # what is kept was built ...
    assert scores is not None  # ... and scored
    files = [context.workspace.copy(path, f"{folder}/{path.name}") for path in engine.data_files]
    files.append(keep_model(engine.path.with_name(EXPLICIT_NAME), f"{folder}/{EXPLICIT_NAME}", context.workspace))
    layers = keep_layers(engine, context, f"{folder}/{LAYERS_NAME}")
    if layers is not None:
        files.append(layers)
    baseline_scores = write_scores(scores, context.workspace, f"{folder}_scores.npz")
    planned = _planned(inspection, kept.plan)
    achieved = None if fallback is None else write_achieved(planned, {}, engine, context, f"{folder}/reached.json")
    known = replace(
        planned,
        baseline=replace(planned.baseline, scores=baseline_scores, fallback=fallback, achieved=achieved),
        notes=(*inspection.notes, *(() if fallback is None or final else (fallback_in_words(fallback),))),
    )
    return BaselineResult(
        workspace.copy(engine.path, f"{folder}/{engine.path.name}"),
        workspace.write_value(f"inspection.{folder}.json", known),
        (*files, baseline_scores),
        engine.knobs,
    )


class _Bench:
    """Builds, scores and times engines without quantized layers for one job."""

    def __init__(
        self, job: EngineJob, context: StageContext, timer: Timer, building: Building, clock: Callable[[], float], *, final: bool
    ) -> None:
        workspace = context.workspace
        self._job, self._context, self._timer = job, context, timer
        self.inspection: Inspection = workspace.read_value(Inspection, job.inspection)
        self.backend: Backend = building(job.config, context, final=final)
        self._validation: CalibrationSet = load_saved(workspace.path(self.inspection.samples.validation))
        self._reference = workspace.read_scores(self.inspection.reference.scores)
        self._model: onnx.ModelProto = read_model(workspace.path(self.inspection.model.file))
        self._ranges = read_ranges(job.calibrated, workspace).ranges
        self._clock, self._until = clock, clock() + MOST_SECONDS
        self._longest = 0.0  # seconds of an engine so far, built and scored
        self._built = 0
        self._done = 0.5  # of the stage, once the target's own baseline is built

    def own_plan(self) -> FloatPlan:
        """Return the target's own baseline: what FP16 cannot hold is in FP32 in any case."""
        base = self.backend.capabilities.baseline
        fallback_regions = self.backend.capabilities.dialect.float32_nodes(self._model, self._ranges, baseline=base)
        return FloatPlan(base.value, base, dict.fromkeys(fallback_regions, Precision.FP32))

    def own(self) -> Tried:
        """Return the target's own baseline with its scores, nodes refused by name in FP32; without an engine where that is no help.

        Raises:
            BuildError: It cannot be built for another reason.
            EngineError: It fails when it runs.
        """
        plan, names = self.own_plan(), {node.name for node in self._model.graph.node}
        while True:
            try:
                return self.build_and_score(plan)
            except RefusedModelError as error:
                refused = names.intersection(error.nodes) - plan.nodes.keys()
                if not refused:
                    return Tried(
                        plan, FloatAttempt(plan.name, _counts(_planned(self.inspection, plan)), None, fits=False, failure=error.detail)
                    )
                plan = replace(plan, nodes={**plan.nodes, **dict.fromkeys(sorted(refused), Precision.FP32)})

    def check_builds(self, own: Tried) -> None:
        """Refuse a model that the builder refuses in float32 as well.

        Raises:
            UnsupportedModelError: It does.
        """
        whole = self.try_plan(FloatPlan("fp32", Precision.FP32))
        if whole.engine is None:
            first, last = own.attempt.failure, whole.attempt.failure
            why = f"in {own.plan.name} and in fp32: {last}" if first == last else f"in {own.plan.name} ({first}) and in fp32 ({last})"
            raise UnsupportedModelError(
                f"target {self.backend.capabilities.target!r}: its builder refuses the model {why}",
                fix="Replace what the builder names in the model, or use the target 'onnxruntime-cpu', which runs it.",
            )

    def found_plan(self) -> FloatPlan:
        """Return what the baseline of the search has."""
        return FloatPlan(self.inspection.baseline.precision.value, self.inspection.baseline.precision, self.inspection.baseline.float_nodes)

    def build_and_score(self, plan: FloatPlan) -> Tried:
        """Return the engine of a plan with its scores.

        Raises:
            BuildError: The target cannot build it, or the metric does not take what it gives.
            EngineError: It fails when it runs.
        """
        planned, start = _planned(self.inspection, plan), self._clock()
        engine = build(EngineRecipe(planned, self._job.calibrated, {}), self.backend, self._place())
        workspace, config = self._context.workspace, self._job.config
        with scored_engine(engine.path, planned, self._validation, self.backend, workspace, threads=config.threads) as judged:
            scores = judged.engine
            is_same = np.array_equal(scores.scores, self._reference)  # needs no fallback, however few samples there are to tell it by
        self._longest = max(self._longest, self._clock() - start)
        meets = is_same or fits(self._reference, scores, planned.reference.metric, config)
        return Tried(plan, FloatAttempt(plan.name, _counts(planned), float(scores.scores.mean()), meets), engine, scores)

    def try_plan(self, plan: FloatPlan) -> Tried:
        """Return the engine of a plan, which does not fit where the builder changed it.

        None where it cannot be built or run, and where that would take longer than is left, but for FP32 everywhere.
        """
        if self._clock() + self._longest > self._until and plan.base is not Precision.FP32:
            failure = f"not tried: an engine takes up to {self._longest:.0f} seconds, which are not left"
            return Tried(plan, FloatAttempt(plan.name, _counts(_planned(self.inspection, plan)), None, fits=False, failure=failure))
        self._context.progress(self._done, f"the baseline misses the budget: trying {plan.name}")
        try:
            tried = self.build_and_score(plan)
        except EngineError as error:
            return Tried(plan, FloatAttempt(plan.name, _counts(_planned(self.inspection, plan)), None, fits=False, failure=error.detail))
        assert tried.engine is not None  # it was built
        off = self._not_achieved(plan, tried.engine)
        if not off:
            return tried
        why_not = ", ".join(f"{one.layer} asked for {one.asked} and got {one.got}" for one in off[:_NAMED])
        return replace(tried, attempt=replace(tried.attempt, fits=False, failure=why_not), refused=tuple(one.layer for one in off))

    def probe(self) -> tuple[ProbedBlock, ...]:
        """Return every block with its loss alone, the most sensitive first."""

        def report(done: int, total: int) -> None:
            self._done = 0.5 + 0.4 * done / total
            self._context.progress(self._done, f"the baseline misses the budget: probed {done} of {total} blocks")

        samples = load_saved(self._context.workspace.path(self.inspection.samples.calibration))
        target = self.backend.capabilities
        return probe_blocks(
            self._model, self.inspection, self._ranges, samples, target.baseline, target.dialect, self._context.scratch, report
        )

    def times(self, tried: Sequence[Tried]) -> list[float | None]:
        """Return the latency of each engine, measured in turns or predicted."""
        opened: dict[str, Runner] = {}
        feeds = timing_feeds(self.inspection, self._validation)
        try:
            for index, one in enumerate(tried):
                if one.engine is not None:
                    opened[str(index)] = self.backend.open(one.engine.path, threads=self._job.config.threads)
            found = self.backend.timings(opened, feeds, TimingPlan(TRIAL_SECONDS, MIN_RUNS, MAX_RUNS, self._timer, EachKnown(MIN_GAIN)))
        except EngineError:  # a latency that cannot be told: then the order of the attempts decides
            return [None] * len(tried)
        finally:
            for runner in opened.values():
                runner.close()
        return [found[str(index)].median_ms if str(index) in found else None for index in range(len(tried))]

    def _place(self) -> StageContext:
        """Return a context whose scratch folder is the next engine's own."""
        folder: Path = self._context.scratch / f"baseline-{self._built}"
        self._built += 1
        folder.mkdir()
        return replace(self._context, scratch=folder)

    def _not_achieved(self, plan: FloatPlan, engine: Engine) -> tuple[AchievedPrecision, ...]:
        """Return the layers that make an engine another one than was simulated: those that the builder gave another float type."""
        if not engine.kernels or self.backend.capabilities.latency_source != "predicted":
            return ()
        own = self.own_plan()
        # a sum has no kernel
        multiplying = [layer.name for layer in self.inspection.model.layers if layer.kind is not LayerKind.RESIDUAL_ADD]
        asked = {name: plan.nodes.get(name, plan.base) for name in multiplying if name not in own.nodes}
        changed = {name: kind for name, kind in asked.items() if kind is not own.base}
        return tuple(one for one in achieved_precisions(engine.kernels, changed) if one.got in _COARSE and one.got is not one.asked)


def _planned(inspection: Inspection, plan: FloatPlan) -> Inspection:
    return replace(inspection, baseline=replace(inspection.baseline, precision=plan.base, float_nodes=dict(plan.nodes)))


def _counts(planned: Inspection) -> dict[str, int]:
    return {precision.value: count for precision, count in Counter(planned.baseline_precisions.values()).most_common()}


def _has_bf16(backend: Backend) -> bool:
    capability = backend.capabilities.compute_capability
    return capability is None or capability >= _BF16_SINCE
