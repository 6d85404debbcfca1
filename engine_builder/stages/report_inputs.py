"""What the stage ``report`` is given: its request, and the files that the request names, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.codec import value_from_json
from calibration.number_formats.layer_precision import Decision
from calibration.ranges.range_table import RangeTable
from calibration.sensitivity.interactions import PairTest
from calibration.sensitivity.ranking import SensitivityTable
from engine_builder.config.config import Config, config_from_json
from engine_builder.records.corrections import Repair, read_ranges, read_repairs
from engine_builder.records.inspection import Inspection, read_inspection
from engine_builder.records.trial import Trial
from engine_builder.reporting.body.stage_results import PredictResult, SearchSummary, VerdictResult
from engine_builder.workspace.workspace import FileRef, StageContext


@dataclass(frozen=True, slots=True, eq=False)
class ReportInputs:
    """Everything that the pipeline gathered. Not compared: it holds arrays."""

    inspection: Inspection
    config: Config
    model: FileRef  # the baseline's file
    ranges: RangeTable
    repairs: tuple[Repair, ...]  # that were tried
    table: SensitivityTable
    pairs: Mapping[str, NDArray[np.generic]]  # arrays of each pair of decisions, as ``profiling.predictions.loss_model`` takes them
    tests: tuple[PairTest, ...]
    orders: Mapping[str, tuple[Decision, ...]]
    providers: tuple[str, ...]  # of ONNX Runtime, that the probes ran on
    trials: tuple[Trial, ...]
    search: SearchSummary
    forecasts: tuple[PredictResult, ...]
    finalists: tuple[Trial, ...]  # built again where the search's engines do not ship
    judgement: VerdictResult
    notes: tuple[str, ...]  # of the final builds and the verdict


def read_inputs(request: Mapping[str, object], context: StageContext) -> ReportInputs:
    """Return what a request holds and names.

    Args:
        request: Of the stage ``report``.
        context: Where the files lie.
    """
    workspace = context.workspace

    def ref(key: str) -> FileRef:
        return value_from_json(FileRef, request[key])

    return ReportInputs(
        inspection=read_inspection(request, context),
        config=config_from_json(request["config"]),
        model=ref("model"),
        ranges=read_ranges(request, context),
        repairs=read_repairs(request, context).tried,
        table=value_from_json(SensitivityTable, workspace.read_json(ref("table"))),
        pairs=workspace.read_arrays(ref("dependency")),
        tests=value_from_json(tuple[PairTest, ...], request["tests"]),
        orders=value_from_json(dict[str, tuple[Decision, ...]], request["orders"]),
        providers=value_from_json(tuple[str, ...], request["providers"]),
        trials=value_from_json(tuple[Trial, ...], request["trials"]),
        search=value_from_json(SearchSummary, request["search"]),
        forecasts=value_from_json(tuple[PredictResult, ...], request["forecasts"]),
        finalists=value_from_json(tuple[Trial, ...], request["finalists"]),
        judgement=value_from_json(VerdictResult, request["verdict"]),
        notes=value_from_json(tuple[str, ...], request["notes"]),
    )
