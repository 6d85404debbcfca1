"""Opens a user's own metric, whichever kind its file is of."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from calibration.accuracy.own_metrics.asked_metric import SUFFIX, AskedMetric
from calibration.accuracy.own_metrics.metric_model import MetricModel

OwnMetric: TypeAlias = MetricModel | AskedMetric


def open_own_metric(path: Path) -> OwnMetric:
    """Return the metric in a file.

    Raises:
        InvalidMetricError: It is none that can be used.
    """
    return AskedMetric(path) if path.suffix == SUFFIX else MetricModel(path)
