"""What a report says of the data of a job: samples, metric, kinds of outputs."""

from __future__ import annotations

from calibration.accuracy.own_metrics.asked_metric import SUFFIX as ASKED_SUFFIX
from engine_builder.records.inspection import Inspection
from engine_builder.reporting.body.layer_facts import output_weights
from engine_builder.reporting.body.report_body import FUNCTION, DataFacts
from engine_builder.workspace.workspace import FileRef


def data_facts(inspection: Inspection) -> DataFacts:
    """Return the facts of a model's samples and of how its outputs are judged."""
    return DataFacts(
        metric=inspection.reference.metric,
        outputs=inspection.model.outputs.kinds,
        output_weights=output_weights(inspection),
        metric_model=_own_metric(inspection.reference.metric_model),
        calibration_samples=inspection.samples.calibration_samples,
        validation_samples=inspection.samples.validation_samples,
        validation_held_out_of_calibration=inspection.samples.held_out,
        calibration_is_validation=inspection.samples.shared_data,
        float_type=inspection.model.float_type,
        timing_batch=inspection.calls.timed_batch,
    )


def _own_metric(metric: FileRef | None) -> str | None:
    if metric is None:
        return None
    return FUNCTION if metric.file.endswith(ASKED_SUFFIX) else metric.sha256
