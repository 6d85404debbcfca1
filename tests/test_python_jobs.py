"""Whole jobs from Python, as a user writes them: on this machine, and on a server on loopback."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest

import onnx_trt_optimizer
from examples.server import running_server
from onnx_trt_optimizer import (
    Client,
    EndEvent,
    Event,
    InvalidConfigError,
    InvalidMetricError,
    NotFoundError,
    ProgressEvent,
    StageEvent,
    TrialEvent,
    optimize,
)
from tests.driver import plain_outputs
from tests.model_text import Array, cnn, run, samples_for

MODEL = cnn()
INPUT, OUTPUT = MODEL.graph.input[0].name, MODEL.graph.output[0].name
CONFIG = {"search": {"max_trials": 2}}


class Batches:
    """As far as it is used, a loader of batches of inputs and labels, the last of which is smaller."""

    def __init__(self, count: int, seed: int) -> None:
        self._inputs = samples_for(MODEL, count, seed=seed)[INPUT]
        self._labels = run(MODEL, {INPUT: self._inputs})[0].argmax(axis=1)

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        for start in range(0, len(self._inputs), 48):
            yield self._inputs[start : start + 48], self._labels[start : start + 48]


def calibration() -> Iterator[Array]:
    yield from samples_for(MODEL, 64, seed=1)[INPUT]


def test_a_job_in_this_process(tmp_path: Path) -> None:
    events: list[Event] = []
    found = optimize(
        MODEL, calibration(), Batches(200, 2), output=tmp_path / "out", config=CONFIG, metric="top1", min_relative=0.9, keep=False,
        on_event=events.append,
    )  # fmt: skip
    assert found.verdict.metric == "top1"
    assert found.json["outcome"] == found.outcome
    assert found.engine_path is not None
    assert found.report_path is not None
    assert found.report_path.read_text().startswith("<!doctype html>")
    feeds = samples_for(MODEL, 8, seed=3)
    assert plain_outputs(found.engine_path, feeds, 8)[0].shape == run(MODEL, feeds)[0].shape
    stages = [event.stage for event in events if isinstance(event, StageEvent)]
    assert stages[0] == "inspect"
    assert stages[-1] == "report"
    trials = [event.trial for event in events if isinstance(event, TrialEvent)]
    assert [trial.index for trial in trials] == list(range(len(trials)))
    assert trials[0].latency_ms is not None
    progress = [event.progress for event in events if isinstance(event, ProgressEvent)]
    assert progress == sorted(progress)
    assert progress[-1] == 1.0


def test_jobs_on_a_server(tmp_path: Path) -> None:
    onnx.save(MODEL, tmp_path / "model.onnx")
    (tmp_path / "server").mkdir()
    with running_server(tmp_path / "server") as address, Client(address) as client:
        with pytest.raises(InvalidConfigError, match="acuracy"):
            client.submit(MODEL, calibration(), config={"acuracy": {}})
        assert client.jobs() == ()
        job = client.submit(tmp_path / "model.onnx", calibration(), Batches(200, 2), config=CONFIG, min_relative=0.9)
        again = client.submit(MODEL, Batches(64, 1), batch_size=2, max_drop=0.1)
        assert again.cancel().state == "cancelled"

        *events, end = job.watch()
        assert isinstance(end, EndEvent)
        assert end.error is None
        assert end.result is not None
        assert "search" in [event.stage for event in events if isinstance(event, StageEvent)]
        assert [event.trial.index for event in events if isinstance(event, TrialEvent)][:2] == [0, 1]
        assert job.wait(1) == job.result == end.result

        assert [(one.id, one.last.state) for one in client.jobs()] == [(again.id, "cancelled"), (job.id, "succeeded")]
        assert [one.id for one in client.jobs(state="succeeded", limit=5)] == [job.id]
        assert client.job(job.id).status().progress == 1.0
        with pytest.raises(NotFoundError):
            client.job("00000000-0000-0000-0000-000000000000")

        files = job.download(tmp_path / "out")
        assert files.outcome == end.result.outcome
        assert files.engine_path is not None
        onnx.checker.check_model(onnx.load(files.engine_path))
        assert {"report.html", "report.json", "log.txt"} <= {path.name for path in (tmp_path / "out").iterdir()}
        with zipfile.ZipFile(tmp_path / "out" / "triton.zip") as archive:
            assert archive.testzip() is None


def test_all_that_is_offered_is_there_and_in_order() -> None:
    assert [name for name in onnx_trt_optimizer.__all__ if not hasattr(onnx_trt_optimizer, name)] == []
    assert np.unique(onnx_trt_optimizer.__all__).size == len(onnx_trt_optimizer.__all__)


@pytest.mark.usefixtures("stages_of_one_parent")
def test_a_metric_that_is_a_function_of_this_process(tmp_path: Path) -> None:
    thread, seen = threading.get_ident(), []

    def metric(outputs: Mapping[str, Array], labels: Array, reference: Mapping[str, Array]) -> Array:
        seen.append((threading.get_ident(), outputs.keys(), reference.keys()))
        right: Array = outputs[OUTPUT].argmax(axis=1) == labels
        return right

    found = optimize(MODEL, calibration(), Batches(200, 2), output=tmp_path / "out", config=CONFIG, metric=metric, min_relative=0.9)
    assert found.verdict.metric == "custom"
    assert found.baseline.accuracy == 1.0  # the labels are the model's own answers
    assert set(map(str, seen)) == {str((thread, {OUTPUT: 0}.keys(), {OUTPUT: 0}.keys()))}
    assert found.report_path is not None
    assert "metric=FUNCTION" in found.report_path.read_text()


@pytest.mark.usefixtures("stages_of_one_parent")
def test_what_a_metric_raises_comes_out_with_its_cause_and_leaves_nothing(tmp_path: Path) -> None:
    def metric(outputs: Mapping[str, Array], labels: Array) -> Array:
        raise ZeroDivisionError("of mine")

    with pytest.raises(InvalidMetricError, match="raised ZeroDivisionError: of mine") as caught:
        optimize(MODEL, calibration(), Batches(200, 2), output=tmp_path / "out", metric=metric)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.__cause__.__traceback__ is not None
    assert not (tmp_path / "out").exists()


def test_an_interrupt_in_a_metric_ends_the_job(tmp_path: Path) -> None:
    def metric(outputs: Mapping[str, Array], labels: Array) -> Array:
        raise KeyboardInterrupt

    others = set(psutil.Process().children(recursive=True))  # such as the database that other tests share
    with pytest.raises(KeyboardInterrupt):
        optimize(MODEL, calibration(), Batches(200, 2), output=tmp_path / "out", metric=metric)
    left = set(psutil.Process().children(recursive=True)) - others
    assert [child.name() for child in left if "postgres" not in child.name() and child.status() != psutil.STATUS_ZOMBIE] == []
    assert not (tmp_path / "out").exists()
