"""What TensorRT's messages become: complaints without the noise of a missing driver, and progress that never goes back."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import pytest

from engine_builder.backends.nvidia.hooks import Messages, process_logger, process_recorder, progress_monitor, without_driver_noise


class Callback:
    """Stands for any of TensorRT's classes that are subclassed."""


@pytest.fixture
def trt() -> ModuleType:
    module = ModuleType("callbacks")
    severities = {"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2, "INFO": 3, "VERBOSE": 4}
    logger = type("ILogger", (Callback,), {"Severity": SimpleNamespace(__members__=severities)})
    module.__dict__.update(ILogger=logger, IErrorRecorder=Callback, IProgressMonitor=Callback)
    return module


def test_what_a_missing_driver_adds_is_left_out() -> None:
    said = "node 'fc':\n  types differ\nIn function catchCudaError: cudaError 35"
    assert without_driver_noise(said) == "node 'fc': types differ"
    assert without_driver_noise("catchCudaError\ncudaError 35 again") == ""


def test_complaints_are_the_last_errors_each_once_whoever_told_them() -> None:
    lines = [("ERROR", f"error {number}") for number in range(7)]
    messages = Messages([("WARNING", "slow"), *lines, ("ERROR", "cudaError 35")], ["error 6", "recorded"])
    assert messages.complaints().splitlines() == ["error 3", "error 4", "error 5", "error 6", "recorded"]


def test_logger_and_recorder_are_one_for_the_process_and_fill_the_same_messages(trt: ModuleType) -> None:
    log, recorder = process_logger(trt), process_recorder(trt)
    assert (process_logger(trt), process_recorder(trt)) == (log, recorder)
    log.log(4, "Layers:\nName: one")  # type: ignore[attr-defined]  # what TensorRT calls
    log.log(4, "chatter")  # type: ignore[attr-defined]  # as above
    log.log(2, "slow")  # type: ignore[attr-defined]  # as above
    assert recorder.report_error("code", "broken")  # type: ignore[attr-defined]  # as above
    assert log.messages.lines == [("VERBOSE", "Layers:\nName: one"), ("WARNING", "slow")]
    assert log.messages.complaints() == "broken"
    log.messages.clear()
    assert (log.messages.lines, log.messages.errors) == ([], [])


def test_what_is_told_of_every_quantized_convolution_is_no_warning(trt: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    log = process_logger(trt)
    log.log(2, " (foreignNode) Converting conv weight scales to fp32.")  # type: ignore[attr-defined]  # what TensorRT calls
    log.log(2, "slow")  # type: ignore[attr-defined]  # as above
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == ["slow"]


def test_progress_is_that_of_the_outermost_phase_and_never_goes_back(trt: ModuleType) -> None:
    seen: list[tuple[float, str]] = []
    monitor = progress_monitor(trt, lambda share, phase: seen.append((share, phase)))
    monitor.phase_start("building", None, 4)  # type: ignore[attr-defined]  # what TensorRT calls
    monitor.phase_start("tactics", "building", 2)  # type: ignore[attr-defined]  # as above
    assert monitor.step_complete("tactics", 1)  # type: ignore[attr-defined]  # as above
    monitor.phase_finish("tactics")  # type: ignore[attr-defined]  # as above
    for step in (0, 1, 0, 3):
        assert monitor.step_complete("building", step)  # type: ignore[attr-defined]  # as above
    assert seen == [(0.0, "building"), (0.0, "tactics"), *((share, "building") for share in (0.25, 0.5, 0.5, 1.0))]
    assert monitor.failure is None


def test_an_error_of_the_listener_stops_the_build_and_is_kept(trt: ModuleType) -> None:
    told: list[str] = []

    def fail(share: float, phase: str) -> None:
        told.append(phase)
        raise KeyError(phase)

    monitor = progress_monitor(trt, fail)
    monitor.phase_start("building", None, 4)  # type: ignore[attr-defined]  # what TensorRT calls
    assert not monitor.step_complete("building", 0)  # type: ignore[attr-defined]  # as above
    assert not monitor.step_complete("building", 1)  # type: ignore[attr-defined]  # as above
    assert told == ["building"]
    assert isinstance(monitor.failure, KeyError)
