"""The stage's side and the caller's side together, as they talk; the caller answers in a thread of the test."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from calibration.accuracy.own_metrics.asked_metric import (
    BATCH,
    LABELS,
    OUTPUT,
    REFERENCE,
    SCORES,
    AskedMetric,
    AskedMetricFile,
    asked_metric_text,
)
from calibration.accuracy.own_metrics.asking import BrokenMessageError, Message, receive, send
from calibration.accuracy.own_metrics.opened import open_own_metric
from calibration.errors import CalibrationError, InvalidMetricError
from tests.model_text import Array

Answer = Callable[[Mapping[str, Array]], Message]
OUTPUTS = {"y": np.linspace(0, 1, 20, dtype=np.float32).reshape(10, 2)}
CLASSES = np.arange(10) % 2


@contextmanager
def answered(folder: Path, answer: Answer, *, reads_reference: bool = False) -> Iterator[AskedMetric]:
    """Give a metric that a thread answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(folder / "s"))
        listening.listen()

        def serve() -> None:
            while True:
                connection, _ = listening.accept()
                with connection:
                    question = receive(connection).arrays
                    if not question:  # the end
                        return
                    send(connection, answer(question))

        thread = threading.Thread(target=serve)
        thread.start()
        (folder / "metric.json").write_text(asked_metric_text(AskedMetricFile(str(folder / "s"), reads_reference)))
        try:
            yield AskedMetric(folder / "metric.json")
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as last:
                last.connect(str(folder / "s"))
                send(last, Message({}))
            thread.join()


def first_column(arrays: Mapping[str, Array]) -> Message:
    return Message({SCORES: arrays[OUTPUT + "y"][:, 0].astype(np.float64)})


def test_scores_are_those_of_the_answer(tmp_path: Path) -> None:
    with answered(tmp_path, first_column) as metric:
        metric.check(OUTPUTS, None)
        np.testing.assert_array_equal(metric.score(OUTPUTS, OUTPUTS, None), OUTPUTS["y"][:, 0])


def test_labels_and_where_asked_for_the_reference_go_along(tmp_path: Path) -> None:
    asked: list[Mapping[str, Array]] = []

    def answer(arrays: Mapping[str, Array]) -> Message:
        asked.append(arrays)
        return Message({SCORES: np.ones(len(arrays[LABELS]))})

    with answered(tmp_path, answer, reads_reference=True) as metric:
        metric.score({"y": OUTPUTS["y"] / 2}, OUTPUTS, CLASSES)
    assert {name: (str(array.dtype), array.shape) for name, array in asked[0].items()} == {
        OUTPUT + "y": ("float32", (10, 2)),
        REFERENCE + "y": ("float32", (10, 2)),
        LABELS: ("int64", (10,)),
    }
    np.testing.assert_array_equal(asked[0][REFERENCE + "y"], OUTPUTS["y"])
    np.testing.assert_array_equal(asked[0][LABELS], CLASSES)


def test_many_samples_are_asked_for_in_parts(tmp_path: Path) -> None:
    sizes: list[int] = []

    def answer(arrays: Mapping[str, Array]) -> Message:
        sizes.append(len(arrays[OUTPUT + "y"]))
        return first_column(arrays)

    many = {"y": np.linspace(0, 1, 2 * (BATCH + 10), dtype=np.float32).reshape(-1, 2)}
    with answered(tmp_path, answer) as metric:
        np.testing.assert_array_equal(metric.score(many, many, None), many["y"][:, 0])
    assert sizes == [BATCH, 10]


def test_samples_that_are_broken_score_nothing_and_are_not_shown(tmp_path: Path) -> None:
    broken = OUTPUTS["y"].copy()
    broken[3, 1], broken[4, 0] = np.nan, np.inf

    def answer(arrays: Mapping[str, Array]) -> Message:
        assert np.isfinite(arrays[OUTPUT + "y"]).all()
        return Message({SCORES: np.ones(10)})

    with answered(tmp_path, answer) as metric:
        assert metric.score({"y": broken}, OUTPUTS, None).tolist() == [1, 1, 1, 0, 0, 1, 1, 1, 1, 1]


def test_scores_that_depend_on_other_samples_are_refused(tmp_path: Path) -> None:
    def answer(arrays: Mapping[str, Array]) -> Message:
        return Message({SCORES: np.full(len(arrays[OUTPUT + "y"]), 1 / len(arrays[OUTPUT + "y"]))})

    with answered(tmp_path, answer) as metric, pytest.raises(InvalidMetricError, match="in a call of its own"):
        metric.check(OUTPUTS, None)


def test_scores_that_change_from_call_to_call_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def answer(arrays: Mapping[str, Array]) -> Message:
        return Message({SCORES: rng.random(len(arrays[OUTPUT + "y"]))})

    with answered(tmp_path, answer) as metric, pytest.raises(InvalidMetricError, match="when it was called again"):
        metric.check(OUTPUTS, None)


@pytest.mark.parametrize("score", [1.5, -0.5, np.nan])
def test_scores_out_of_bounds_are_refused(score: float, tmp_path: Path) -> None:
    with (
        answered(tmp_path, lambda arrays: Message({SCORES: np.full(10, score)})) as metric,
        pytest.raises(InvalidMetricError, match="expected 0 to 1"),
    ):
        metric.score(OUTPUTS, OUTPUTS, None)


def test_an_error_of_the_other_side_is_raised_here(tmp_path: Path) -> None:
    problem = dict(InvalidMetricError("metric: it raised", fix="Mend it.").problem())
    with answered(tmp_path, lambda arrays: Message({}, problem)) as metric, pytest.raises(InvalidMetricError, match="it raised"):
        metric.score(OUTPUTS, OUTPUTS, None)


def test_nobody_to_answer_is_no_fault_of_the_input(tmp_path: Path) -> None:
    (tmp_path / "metric.json").write_text(asked_metric_text(AskedMetricFile(str(tmp_path / "none"), False)))
    metric = open_own_metric(tmp_path / "metric.json")
    with pytest.raises(CalibrationError, match="does not answer"):
        metric.score(OUTPUTS, OUTPUTS, None)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"no JSON\n",
        b"[]\n",
        b'{"arrays": 3, "error": null}\n',
        b'{"arrays": [{"name": "y", "dtype": "|O", "shape": [1]}], "error": null}\n12345678',
        b'{"arrays": [{"name": "y", "dtype": "<f4", "shape": [-1]}], "error": null}\n1234',
        b'{"arrays": [{"name": "y", "dtype": "<f4", "shape": [2]}], "error": null}\n1234',
    ],
)
def test_a_message_of_another_form_is_refused(sent: bytes) -> None:
    one, other = socket.socketpair()
    with one, other:
        one.sendall(sent)
        one.close()
        with pytest.raises(BrokenMessageError):
            receive(other)


@pytest.mark.parametrize(
    "array", [np.float16(3), np.arange(6).reshape(2, 3).T, np.zeros((0, 3)), np.array([True, False]), np.arange(3, dtype=">i4")]
)
def test_arrays_arrive_as_they_were(array: Array) -> None:
    one, other = socket.socketpair()
    with one, other:
        send(one, Message({"x": np.asarray(array)}))
        found = receive(other).arrays["x"]
    np.testing.assert_array_equal(found, array)
    assert (found.dtype, found.shape) == (np.asarray(array).dtype, np.asarray(array).shape)
