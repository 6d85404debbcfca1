"""The analysis: what every layer costs alone and in pairs, measured by probes of the float model when it is first asked for.

A search that the accuracy budget does not bind never asks. A stage that fails costs what it measures, not the job: without losses
there is nothing to predict from, and the search ends with the engines that it has; what else fails is left out. Part of the pipeline and
like it deterministic: it asks for stages and handles their requests and results.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

from engine_builder.backends.base import Capabilities
from engine_builder.backends.job_precisions import low_precisions
from engine_builder.errors import EngineError
from engine_builder.evaluation.loss_budget import allowed_loss
from engine_builder.pipeline import stage_table as table
from engine_builder.pipeline.observer import Observer
from engine_builder.pipeline.on_demand.corrections import Corrections
from engine_builder.pipeline.progress import Progress
from engine_builder.pipeline.stage import RunStage, Stage, run
from engine_builder.stage_io.measuring import (
    Analysed,
    HessianRequest,
    InspectResult,
    InteractionsRequest,
    RankRequest,
    SensitivityRequest,
    SensitivityResult,
    paired_samples,
    parts_by_provider,
)

Q = TypeVar("Q")
R = TypeVar("R")

MAX_PROBE_SAMPLES = 256
CHUNK_SECONDS = 20.0  # of one sensitivity stage
RACE_SECONDS = 4.0  # of all sensitivity stages together, from which on it pays to begin with a few samples
FIRST_SAMPLES = 16
SHARE_OF_FORWARD = 0.7  # cost of one probe, in forward passes of the whole model
SHARE_OF_PROGRESS = 0.4  # of what is left when the analysis begins


class Analysis:
    """Runs the stages of the analysis once, when somebody needs what they find. Not thread-safe."""

    def __init__(
        self,
        corrections: Corrections,
        capabilities: Capabilities,
        inspected: InspectResult,
        driver: RunStage,
        observer: Observer,
        progress: Progress,
    ) -> None:
        """Measure nothing yet.

        Args:
            corrections: Of the job, which probes see layers with: they are measured before.
            capabilities: The target's.
            inspected: What the model and the samples are.
            driver: Runs a stage.
            observer: Is told when the parts of the analysis begin.
            progress: Of the search, a share of which the analysis takes.
        """
        self._corrections, self._capabilities, self._inspected = corrections, capabilities, inspected
        self._driver, self._observer, self._progress = driver, observer, progress
        self.found: Analysed | None = None  # None until it was asked for, and where it failed
        self.failures: tuple[str, ...] = ()  # what could not be measured, and what that changes, a sentence each
        self._was_asked = False

    def measured(self) -> Analysed | None:
        """Return what the probes found, None where no losses could be measured or put together; the first call runs them.

        Raises:
            OptimizerError: The user's input does not fit, or the job was cancelled.
        """
        if not self._was_asked:
            self._was_asked = True
            self.found = self._measure(self._progress.take(SHARE_OF_PROGRESS))
        return self.found

    def _ran(self, stage: Stage[Q, R], request: Q, span: tuple[float, float], without: str, key: str | None = None) -> R | None:
        """Return what a stage gives, None where it fails, which is noted together with what that changes."""
        try:
            return run(self._driver, stage, request, key=key, span=span)
        except EngineError as error:
            self.failures = (*self.failures, f"the stage {key or stage.name} failed, so {without}: {error.detail}")
            return None

    def _measure(self, span: tuple[float, float]) -> Analysed | None:
        job, inspected = self._corrections.job, self._inspected
        of, config = job.calibrated, job.config
        low, high = _within(span, table.SENSITIVITY)
        self._observer.entered("sensitivity", low)
        decisions = sum(map(len, of.eligible.values()))
        forward_seconds = decisions * inspected.sample_seconds / inspected.processors
        used, is_open = probed_samples(inspected.samples, inspected.batch), 1.0
        allowed = allowed_loss(config.accuracy.budget, inspected.metric, inspected.scored_kinds)
        is_raced = next_share(0, used, inspected.batch, forward_seconds) < used
        raced = _to_a_power_of_two(allowed) if allowed is not None and is_raced else None
        layer_losses: list[SensitivityResult] = []
        stop = known = 0  # samples asked for, and those that losses are known on
        while stop < used:
            index, start, stop = len(layer_losses), stop, next_share(stop, used, inspected.batch, forward_seconds, is_open)
            part = (low + (high - low) * start / used, low + (high - low) * stop / used)
            earlier = tuple(share.losses for share in layer_losses) if raced is not None else ()
            request = SensitivityRequest(of, start, stop, earlier, raced if earlier else None, inspected.batch)
            left = f"losses are of {start} samples only" if start else "no losses are known, and the search ended with what it had tried"
            share = self._ran(table.SENSITIVITY, request, part, left, f"sensitivity/{index}")
            if share is None or not share.probed:
                break
            layer_losses.append(share)
            known = stop
            is_open = min(share.probed / decisions, 1.0)
        if not layer_losses:
            return None
        losses = tuple(share.losses for share in layer_losses)
        wanted = HessianRequest(of, low_precisions(config, self._capabilities), allowed, config.search.seed)
        traced = self._ran(table.HESSIAN, wanted, _within(span, table.HESSIAN), "the orders by the Hessian follow the losses alone")
        together = _within(span, table.INTERACTIONS)
        self._observer.entered("dependency", together[0])
        pairs = InteractionsRequest(of, losses, raced, (0, paired_samples(known, inspected.batch)), inspected.batch)
        tested = self._ran(table.INTERACTIONS, pairs, together, "no pair of layers was tested together")
        traces, samples = (traced.traces, traced.samples) if traced is not None else ((), 0)
        tests = tested.tests if tested is not None else ()
        asked = RankRequest(of, losses, traces, samples, tests, config.search.orders)
        ranked = self._ran(table.RANK, asked, _within(span, table.RANK), "the search ended with what it had tried")
        if ranked is None:
            return None
        return Analysed(ranked, tests, parts_by_provider(one for one in (*layer_losses, traced, tested) if one is not None))


def _within(span: tuple[float, float], stage: Stage[Any, Any]) -> tuple[float, float]:
    """Return the part of the analysis's progress that a stage covers, in the proportions of the table of stages."""
    low, high = table.SENSITIVITY.progress[0], table.RANK.progress[1]
    start, stop = ((place - low) / (high - low) for place in stage.progress)
    return span[0] + start * (span[1] - span[0]), span[0] + stop * (span[1] - span[0])


def _to_a_power_of_two(allowed: float) -> float:
    """Return about the loss, so that jobs of like budgets ask for the same: it is known to a factor of four at best."""
    return 2.0 ** round(math.log2(allowed)) if allowed > 0.0 else 0.0


def probed_samples(samples: int, batch: int) -> int:
    """Return how many of the calibration samples are probed at most.

    Args:
        samples: Calibration samples.
        batch: Samples in one call; shares are whole batches.
    """
    return min(samples, max(MAX_PROBE_SAMPLES // batch, 1) * batch)


def next_share(start: int, used: int, batch: int, forward_seconds: float, is_open: float = 1.0) -> int:
    """Return where the next sensitivity stage ends, so that it takes about CHUNK_SECONDS.

    Where all together take longer than RACE_SECONDS, the first stage has FIRST_SAMPLES, and no stage has more than those before it had
    together: what the first ones leave no doubt about is not probed in the later ones.

    Args:
        start: Samples that earlier stages had.
        used: Samples that are probed at most.
        batch: Samples in one call; shares are whole batches.
        forward_seconds: One forward pass of one sample for every layer precision, all processors at work.
        is_open: Share of the layer precisions that the stage before probed, above 0: the next one probes no more.
    """
    seconds = max(forward_seconds * SHARE_OF_FORWARD, 1e-9)  # of a sample
    size = max(1, int(CHUNK_SECONDS / (seconds * is_open * batch))) * batch
    first = -(-FIRST_SAMPLES // batch) * batch
    most = max(start, first) if seconds * used > RACE_SECONDS else used
    return min(start + min(size, most), used)
