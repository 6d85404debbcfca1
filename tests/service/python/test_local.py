"""A call in this process, as far as no stage has to run: the whole of it is in tests/test_python_jobs.py."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from calibration.errors import InvalidCalibrationSetError, InvalidConfigError, OptimizerError
from service.local.progress import ProgressView
from service.python.events import Event, ProgressEvent
from service.python.local import _EventView, optimize
from tests.model_text import Array, cnn
from tests.service.local.test_progress import ProgressViewContract


class TestEventView(ProgressViewContract):
    @pytest.fixture(autouse=True)
    def _log(self) -> Iterator[None]:
        log = logging.getLogger("service.python.local")
        before = list(log.handlers)
        log.setLevel(logging.INFO)
        yield
        log.setLevel(logging.NOTSET)
        log.handlers = before

    def view(self, stream: io.StringIO) -> ProgressView:
        def write(event: Event) -> None:
            assert isinstance(event, ProgressEvent)
            stream.write(f"{event.progress:.0%} {event.message}\n")

        logging.getLogger("service.python.local").addHandler(logging.StreamHandler(stream))  # lines go to the log
        return _EventView(write)


def test_progress_never_goes_back_and_is_told_once() -> None:
    events: list[Event] = []
    with _EventView(events.append) as view:
        for fraction in (0.5, 0.25, 0.25, 0.75):
            view.update(fraction, "search")
    assert events == [ProgressEvent(0.5, "search"), ProgressEvent(0.75, "search")]


class Unread:
    """Samples that nobody may ask for."""

    def __iter__(self) -> Iterator[Array]:
        raise AssertionError("it was read")


@pytest.mark.parametrize("config", [{"acuracy": {}}, {"target": "toaster"}, {"accuracy": {"metric": "custom"}}])
def test_a_wrong_configuration_is_said_before_a_sample_is_read(config: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(OptimizerError) as caught:
        optimize(cnn(), Unread(), output=tmp_path / "out", keep=False, config=config)
    assert caught.value.fix
    assert not (tmp_path / "out").exists()


def test_keys_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError):
        optimize(cnn(), Unread(), output=tmp_path / "out", keep=False, min_relative=0.9, min_speedup=2.0)


def test_samples_that_do_not_fit_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    onnx.save(cnn(), tmp_path / "model.onnx")
    with pytest.raises(InvalidCalibrationSetError, match=re.escape("calibration set, item 1")):
        optimize(tmp_path / "model.onnx", [np.zeros((1, 8, 8)), np.zeros((2, 8, 8))], output=tmp_path / "out", keep=False)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
