"""The fastest mixed-precision engine of an ONNX model inside an accuracy budget: ``optimize`` on this machine, ``Client`` of a server."""

from calibration.errors import (
    CalibrationError,
    InputError,
    InvalidCalibrationSetError,
    InvalidConfigError,
    InvalidMetricError,
    InvalidModelError,
    OptimizerError,
)
from engine_builder.errors import EngineError, StageCancelledError
from service import __version__
from service.client.answers import ServerUnavailableError
from service.client.downloads import DownloadError
from service.client.views import JobRow
from service.errors import NotFinishedError, NotFoundError, ServiceError
from service.python.client import Client
from service.python.events import EndEvent, Event, ProgressEvent, StageEvent, Trial, TrialEvent
from service.python.job import Job, WaitTimeoutError
from service.python.local import optimize
from service.python.result import Engine, Latency, Offer, OfferedFile, Offers, PredictedSpeedup, Result, Verdict

__all__ = [
    "CalibrationError",
    "Client",
    "DownloadError",
    "EndEvent",
    "Engine",
    "EngineError",
    "Event",
    "InputError",
    "InvalidCalibrationSetError",
    "InvalidConfigError",
    "InvalidMetricError",
    "InvalidModelError",
    "Job",
    "JobRow",
    "Latency",
    "NotFinishedError",
    "NotFoundError",
    "Offer",
    "OfferedFile",
    "Offers",
    "OptimizerError",
    "PredictedSpeedup",
    "ProgressEvent",
    "Result",
    "ServerUnavailableError",
    "ServiceError",
    "StageCancelledError",
    "StageEvent",
    "Trial",
    "TrialEvent",
    "Verdict",
    "WaitTimeoutError",
    "__version__",
    "optimize",
]
