"""The stage ``trial``: one assignment becomes an engine, which is scored on every validation sample and timed against the baseline."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from calibration.codec import json_from_value, value_from_json
from calibration.data.dataset import load_saved
from calibration.number_formats.precision import Precision
from engine_builder.backends.base import Engine, Runner
from engine_builder.config.config import config_from_json
from engine_builder.engines.factory import building_backend
from engine_builder.engines.quantized_engine import Corrected, build_corrected, settled
from engine_builder.errors import BuildError, EngineError
from engine_builder.evaluation.measurement import (
    MAX_RUNS,
    MIN_RUNS,
    TRIAL_SECONDS,
    accuracy,
    compare,
    fits,
    kept_engine,
    latency_of,
    search_half,
    timing_feeds,
    write_reached,
)
from engine_builder.evaluation.outputs import ComparedOutputs
from engine_builder.evaluation.run_samples import run_all, run_workers
from engine_builder.records.assignment import fingerprint_of
from engine_builder.records.inspection import read_inspection
from engine_builder.records.trial import Trial
from engine_builder.timing import Timer, TimingPlan, time_interleaved
from engine_builder.workspace.model_files import model_size_bytes
from engine_builder.workspace.workspace import FileRef, StageContext

ROUGH_TIMER = functools.partial(time_interleaved, enough=0.03)  # the finalists are timed again


def trial(request: Mapping[str, object], context: StageContext, *, timer: Timer = ROUGH_TIMER) -> dict[str, object]:
    """Build, score and time one assignment.

    Where the engine with corrected biases misses the budget and the one without meets it, the latter is the trial's: the correction
    lowers the loss on calibration samples, which need not be what the metric sees.

    Args:
        request: ``inspection``, ``ranges``, ``config``, ``model`` (the baseline), ``low`` (layer -> precision), ``index``, ``order``.
        context: Where files go.
        timer: Times the engine and the baseline.

    Raises:
        BuildError: The engine cannot be built, or fails when it runs.
    """
    start = time.perf_counter()
    found = read_inspection(request, context)
    config = config_from_json(request["config"])
    asked = {name: Precision(value) for name, value in cast(Mapping[str, str], request["low"]).items()}
    backend = building_backend(config, context)
    fingerprint = fingerprint_of((layer.name for layer in found.layers), asked, backend.capabilities.baseline)
    low = settled(found, asked, backend, context)
    validation = load_saved(context.workspace.path(found.validation))
    baseline_path = context.workspace.path(value_from_json(FileRef, request["model"]))
    if low:
        built = build_corrected(found, request, low, backend, context.part(0.0, 0.3), f"trials/{fingerprint}-biases.npz")
    else:
        built = Corrected(Engine(baseline_path, (), model_size_bytes(baseline_path)))
    context.progress(0.3, "engine built")
    reference = cast("NDArray[np.float64]", context.workspace.read_arrays(found.scores)["scores"])

    def scored(engine: Engine) -> tuple[Runner, NDArray[np.float64], float]:
        runner = backend.open(engine.path, threads=config.threads)
        outputs = run_all(
            ComparedOutputs(runner, found.compared, found.axes), validation, batch=found.scoring_batch, workers=run_workers(backend)
        )
        return runner, *compare(found, outputs, validation, context)

    try:
        if not low and backend.capabilities.is_own_baseline and found.baseline_type is Precision.FP32:
            # The float model itself, which the stage ``inspect`` has run on every sample.
            runner, scores, loss = backend.open(baseline_path, threads=config.threads), reference, 0.0
        else:
            runner, scores, loss = scored(built.engine)
        if built.plain is not None and not fits(reference, scores, found, config):
            plain = scored(built.plain)
            if fits(reference, plain[1], found, config):
                runner.close()
                runner, scores, loss = plain
                assert built.repair is not None
                built = Corrected(built.plain, replace(built.repair, kept=False))
            else:
                plain[0].close()
        context.progress(0.7, "accuracy measured")
        runners: dict[str, Runner] = {"engine": runner}
        if low:
            runners["baseline"] = backend.open(baseline_path, threads=config.threads)
        feeds = timing_feeds(found, validation)
        timings = backend.timings(runners, feeds, TimingPlan(TRIAL_SECONDS, MIN_RUNS, MAX_RUNS, timer))
    except BuildError:
        raise
    except EngineError as error:
        raise BuildError(f"the engine was built but does not run: {error.detail}", fix=error.fix) from error
    half = search_half(len(scores), config.search.seed)
    result = Trial(
        index=cast(int, request["index"]),
        fingerprint=fingerprint,
        precisions=low,
        order=str(request["order"]),
        low_layers=len(low),
        on_all=accuracy(reference, scores, config.accuracy.budget),
        on_search=accuracy(reference[half], scores[half], config.accuracy.budget),
        loss=loss,
        latency=latency_of(timings),
        size_bytes=built.engine.size_bytes,
        scores=context.workspace.write_arrays(f"trials/{fingerprint}.npz", scores=scores),
        seconds=time.perf_counter() - start,
        failure=None,
        bias=built.repair,
        corrections=built.corrections,
        engine=kept_engine(built.engine, backend, context, f"trials/{fingerprint}.plan") if low else None,
        reached=write_reached(found, low, built.engine, context, f"trials/{fingerprint}-reached.json"),
    )
    return {"trial": json_from_value(result)}
