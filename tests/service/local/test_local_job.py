from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from calibration.accuracy.metrics import Metric
from calibration.codec import value_from_json
from calibration.errors import InvalidCalibrationSetError, InvalidConfigError, InvalidModelError
from engine_builder.config.config import Config
from engine_builder.errors import StageCrashedError
from engine_builder.pipeline.observer import Observer
from engine_builder.pipeline.optimize import JobRequest
from engine_builder.pipeline.stage import RunStage
from engine_builder.stage_io.outcome import JobOutcome
from engine_builder.workspace.workspace import FileRef
from service.local.local_job import LocalJob, optimize_locally
from service.local.progress import ProgressLines
from service.worker.child_process import StageLimits

OFFERED = "fedcba9876543210"
STAGES = "tests.engine_builder.misbehaving_stages"
TRIAL = {"index": 0, "fingerprint": "f", "order": "baseline", "low_layers": 0, "accuracy": 0.5, "latency_ms": {"median": 1.0}, "met": True}


class FakePipeline:
    """A pipeline of one stage, whose file stands for the engine and every artifact."""

    def __init__(self, stage: str = "echo") -> None:
        self.jobs: list[JobRequest] = []
        self._stage = stage

    def __call__(self, job: JobRequest, run_stage: RunStage, observer: Observer) -> JobOutcome:
        self.jobs.append(job)
        observer.entered("inspect", 0.0)
        made = run_stage("first", self._stage, {"model": {"file": job.files.model.file, "sha256": job.files.model.sha256}}, (0.0, 0.5))
        observer.searched([TRIAL], 0)
        observer.searched([TRIAL], 0)
        engine = value_from_json(FileRef, made["ref"])
        result = {"engine": {"name": "engine.onnx", "sha256": engine.sha256, "size_bytes": 1}}
        return JobOutcome(result, "engine.onnx", engine, {"report.json": engine})


@pytest.fixture
def job(tmp_path: Path) -> LocalJob:
    (tmp_path / "my model.onnx").write_bytes(b"a model")
    (tmp_path / "calibration.npz").write_bytes(b"some arrays")
    return LocalJob(
        model=tmp_path / "my model.onnx",
        calibration=tmp_path / "calibration.npz",
        validation=None,
        config=Config(),
        output=tmp_path / "out",
        limits=StageLimits(memory_bytes=2 * 2**30, seconds=20),
    )


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    with io.StringIO() as found:
        yield found


def run(job: LocalJob, pipeline: FakePipeline, stream: io.StringIO | None = None) -> Mapping[str, object]:
    with ProgressLines(stream or io.StringIO()) as view:
        return optimize_locally(job, view, pipeline=pipeline, stages=STAGES)


def replaced(job: LocalJob, **changes: Any) -> LocalJob:
    return dataclasses.replace(job, **changes)


def test_output_folder_holds_the_results_and_nothing_else(job: LocalJob) -> None:
    result = run(job, FakePipeline())
    assert {path.name for path in job.output.iterdir()} == {"engine.onnx", "report.json", "result.json", "log.txt"}
    assert json.loads((job.output / "result.json").read_text()) == result


def test_users_files_are_copied_and_not_changed(job: LocalJob) -> None:
    pipeline = FakePipeline()
    run(job, pipeline)
    assert job.model.read_bytes() == b"a model"
    assert job.calibration.read_bytes() == b"some arrays"
    assert pipeline.jobs[0].files.model.file.endswith("my model.onnx")
    assert pipeline.jobs[0].files.calibration.file.endswith(".npz")


def test_metric_of_ones_own_goes_with_the_job(job: LocalJob, tmp_path: Path) -> None:
    (tmp_path / "mine.onnx").write_bytes(b"a graph")
    pipeline = FakePipeline()
    run(replaced(job, metric_model=tmp_path / "mine.onnx"), pipeline)
    run(job, pipeline)
    with_metric, without = pipeline.jobs
    assert with_metric.files.metric_model is not None
    assert with_metric.files.metric_model.sha256 == hashlib.sha256(b"a graph").hexdigest()
    assert with_metric.config.accuracy.metric is Metric.CUSTOM
    assert (without.files.metric_model, without.config.accuracy.metric) == (None, None)


def test_progress_and_each_trial_are_told_once(job: LocalJob, stream: io.StringIO) -> None:
    run(job, FakePipeline(), stream)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "  0% inspect"
    assert any(line.startswith(" 50% first") for line in lines)
    assert [line for line in lines if "trial 0" in line] == [
        "     trial 0: baseline, 0 layers quantized, score 0.5000, 1.000 ms, inside the budget"
    ]


TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


def test_the_log_says_when_what_happened(job: LocalJob) -> None:
    run(job, FakePipeline())
    log = (job.output / "log.txt").read_text()
    for text in (r"begins: pipeline .*onnxruntime", r"first: took \d+\.\d s", "trial 0: baseline, 0 layers quantized", "ends: "):
        assert re.search(rf"(?m)^{TIME} {text}", log), text


def test_the_log_of_a_failed_job_says_why(job: LocalJob) -> None:
    with pytest.raises(StageCrashedError) as caught:
        run(job, FakePipeline("crash"))
    assert re.search(rf"(?m)^{TIME} failed: {re.escape(caught.value.detail[:20])}", (job.output / "log.txt").read_text())


def test_input_error_leaves_no_file_and_no_folder(job: LocalJob) -> None:
    with pytest.raises(InvalidModelError):
        run(job, FakePipeline("refuse"))
    assert not job.output.exists()


def test_crash_leaves_the_log_alone(job: LocalJob) -> None:
    with pytest.raises(StageCrashedError):
        run(job, FakePipeline("crash"))
    assert {path.name for path in job.output.iterdir()} == {"log.txt"}


def test_failed_run_keeps_what_the_folder_held(job: LocalJob) -> None:
    job.output.mkdir()
    (job.output / "mine").write_bytes(b"x")
    with pytest.raises(InvalidModelError):
        run(job, FakePipeline("refuse"))
    assert {path.name for path in job.output.iterdir()} == {"mine"}


def test_remains_of_a_killed_run_are_removed(job: LocalJob) -> None:
    (job.output / ".work-old").mkdir(parents=True)
    (job.output / ".work-old" / "big").write_bytes(b"x")
    run(job, FakePipeline())
    assert not any(path.name.startswith(".") for path in job.output.iterdir())


def test_second_run_into_the_same_folder_is_refused(job: LocalJob) -> None:
    job.output.mkdir()
    handle = os.open(job.output, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(InvalidConfigError, match="another run writes to it"):
            run(job, FakePipeline())
    finally:
        os.close(handle)


def test_external_data_travel_with_the_model(job: LocalJob) -> None:
    job.model.write_bytes(b"\x0a\x08location\x12\x06w.data")
    (job.model.parent / "w.data").write_bytes(b"weights")
    workspaces: list[set[str]] = []

    class Looking(FakePipeline):
        def __call__(self, request: JobRequest, run_stage: RunStage, observer: Observer) -> JobOutcome:
            (work,) = job.output.glob(".work-*")
            workspaces.append({path.name for path in (work / request.files.model.file).parent.iterdir()})
            return super().__call__(request, run_stage, observer)

    run(job, Looking())
    assert workspaces == [{"my model.onnx", "w.data"}]


def test_archive_of_a_model_is_unpacked(job: LocalJob) -> None:
    with zipfile.ZipFile(job.model, "w") as archive:
        archive.writestr("folder/net.onnx", b"a model")
    pipeline = FakePipeline()
    run(job, pipeline)
    assert pipeline.jobs[0].files.model.file.endswith("folder/net.onnx")


@pytest.mark.parametrize("wrong", ["missing", "."])
def test_missing_inputs_are_named(job: LocalJob, tmp_path: Path, wrong: str) -> None:
    for field, error in (
        ("model", InvalidModelError),
        ("calibration", InvalidCalibrationSetError),
        ("validation", InvalidCalibrationSetError),
    ):
        with pytest.raises(error, match=f"{field}.*(no such file|is a folder)"):
            run(replaced(job, **{field: tmp_path / wrong}), FakePipeline())
    assert not job.output.exists()


def test_output_that_is_a_file_is_refused(job: LocalJob, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="output folder"):
        run(replaced(job, output=tmp_path / "calibration.npz"), FakePipeline())


def test_kept_measurements_are_used_by_the_next_run(job: LocalJob, tmp_path: Path) -> None:
    cached = replaced(job, cache=tmp_path / "cache")
    first = run(cached, FakePipeline("echo"))
    assert run(cached, FakePipeline("echo")) == first
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["unfinished-jobs"]  # echo is not among the stages that are kept
    assert list((tmp_path / "cache" / "unfinished-jobs").iterdir()) == []


class Offering(FakePipeline):
    """A pipeline that offers an engine with external data."""

    def __call__(self, job: JobRequest, run_stage: RunStage, observer: Observer) -> JobOutcome:
        outcome = super().__call__(job, run_stage, observer)
        engine = value_from_json(FileRef, run_stage("offers", "offer", {"folder": f"front/{OFFERED}"}, (0.5, 1.0)))
        return dataclasses.replace(outcome, artifacts={**outcome.artifacts, engine.file: engine})


def test_offered_engines_lie_in_a_folder_each_with_their_external_data(job: LocalJob) -> None:
    run(job, Offering())
    folder = job.output / "front" / OFFERED
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "engine.onnx": b"\x0a\x08location\x12\x06w.data",
        "w.data": b"weights",
    }


def test_offers_of_an_earlier_run_are_removed_and_nothing_else_is(job: LocalJob) -> None:
    for name in ("0123456789abcdef", "mine"):
        (job.output / "front" / name).mkdir(parents=True)
    run(job, FakePipeline())
    assert [path.name for path in (job.output / "front").iterdir()] == ["mine"]


def test_several_types_of_gpu_are_left_to_a_server(job: LocalJob) -> None:
    config = Config(target="tensorrt-rtx", gpus=("L4", "RTX 4090"))
    with pytest.raises(InvalidConfigError, match="a run without a server makes an engine for one type"):
        optimize_locally(dataclasses.replace(job, config=config), ProgressLines(io.StringIO()), pipeline=FakePipeline())
