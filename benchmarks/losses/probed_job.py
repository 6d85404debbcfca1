"""A job up to its loss model, in this process, and the measured loss of any engine of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.graph.layers import LayerKind
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.backends.job_precisions import low_precisions
from engine_builder.backends.registry import BACKENDS, TargetContext, backend_for
from engine_builder.config.config import config_from_json
from engine_builder.config.inspect_settings import inspect_settings
from engine_builder.evaluation.loss_budget import allowed_loss
from engine_builder.profiling.predictions import read_loss_model
from engine_builder.records.calibrated import Calibrated, layer_precisions_of, read_corrections, read_model_record
from engine_builder.search.loss_model import LossModel
from engine_builder.stage_io.engines import EngineJob, TrialRequest
from engine_builder.stage_io.measuring import (
    CorrectRequest,
    HessianRequest,
    InspectRequest,
    InspectResult,
    InteractionsRequest,
    JobFiles,
    RangesRequest,
    RankRequest,
    SensitivityRequest,
)
from engine_builder.stages.correct import correct
from engine_builder.stages.inspect import inspect
from engine_builder.stages.probe import hessian, interactions, sensitivity
from engine_builder.stages.ranges import ranges
from engine_builder.stages.rank import rank
from engine_builder.stages.trial import trial
from engine_builder.timing import Timing
from engine_builder.workspace.workspace import Workspace

PROBE_SAMPLES = 256  # as a job
Samples = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Probes:
    """What the probes of one job say, and the order that they make."""

    losses: LossModel
    orders: Mapping[str, tuple[LayerPrecision, ...]]


class ProbedJob:
    """A job with its ranges and corrections."""

    def __init__(
        self, folder: Path, model: onnx.ModelProto, calibration: Samples, validation: Samples, config: Mapping[str, object]
    ) -> None:
        """Run the stages up to the corrections."""
        self._workspace, self._scratches = Workspace(folder), 0
        files = JobFiles(
            self._workspace.write_bytes("model/model.onnx", model.SerializeToString()),
            self._workspace.write_arrays("calibration/calibration.npz", **calibration),
            self._workspace.write_arrays("validation/validation.npz", **validation),
        )
        self._config = config_from_json(dict(config))
        capabilities = backend_for(self._config.target, self._config.gpu).capabilities
        self._precisions = low_precisions(self._config, capabilities)
        self._found: InspectResult = inspect(InspectRequest(files, inspect_settings(self._config)), self._context())
        found, settings = self._found, self._config.calibration
        ranged = ranges(
            RangesRequest(found.model, found.calibration, settings.method, self._precisions, self._config.target, self._config.gpu),
            self._context(),
        )
        of = Calibrated(found.model, found.calibration, ranged.ranges, ranged.eligible)
        asked = self._config
        wanted = CorrectRequest(of, settings.method, settings.second_order, asked.search.seed, asked.target, asked.gpu)
        made = correct(wanted, self._context())
        self._of = replace(of, corrections=made.corrections)
        self.layers = read_model_record(self._of, self._workspace).layers
        self.layer_precisions = layer_precisions_of(self.layers, self._of.eligible)

    @property
    def products(self) -> tuple[LayerPrecision, ...]:
        """Every layer precision but those of residual adds."""
        adds = {layer.name for layer in self.layers if layer.kind is LayerKind.RESIDUAL_ADD}
        return tuple(item for item in self.layer_precisions if item.layer not in adds)

    def probes(self, *, corrected: bool = True) -> Probes:
        """Return what the probes find, of layers with the correction of their biases or without."""
        of, found, config = self._of, self._found, self._config
        if not corrected:
            table = replace(read_corrections(of, self._workspace), shifts=None)
            of = replace(of, corrections=self._workspace.write_value("uncorrected.json", table))
        stop = min(found.samples, PROBE_SAMPLES) // found.batch * found.batch or found.samples
        losses = (sensitivity(SensitivityRequest(of, 0, stop), self._context()).losses,)
        allowed = allowed_loss(config.accuracy.budget, found.metric, found.scored_kinds)
        traced = hessian(HessianRequest(of, self._precisions, allowed, config.search.seed), self._context())
        tested = interactions(InteractionsRequest(of, losses), self._context())
        ranked = rank(RankRequest(of, losses, traced.traces, traced.samples, tested.tests, config.search.orders), self._context())
        return Probes(read_loss_model(ranked, self._workspace), ranked.rankings)

    def measured_loss(self, quantized: Mapping[str, Precision], index: int) -> float:
        """Return the loss of an engine on the validation samples, its biases corrected where that was found to help."""
        job = EngineJob(self._config, self._found.inspection, self._found.baseline, self._of)
        loss = trial(TrialRequest(job, quantized, index, "benchmark"), self._context(), timer=once).loss
        assert loss is not None  # of every engine that was built
        return loss

    def _context(self) -> TargetContext:
        self._scratches += 1
        scratch = self._workspace.root / f"scratch-{self._scratches}"
        scratch.mkdir()
        return TargetContext(Workspace(self._workspace.root, temporary=scratch), scratch, lambda share, message: None, BACKENDS)


def once(calls: Mapping[str, Callable[[], object]], **how: object) -> dict[str, Timing]:
    """Run each engine once, and say that all take a millisecond: here nobody asks for times."""
    for call in calls.values():
        call()
    return {name: Timing(1.0, 1.0, 0.0, 9, (1.0,) * 9) for name in calls}
