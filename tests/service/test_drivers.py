"""The two drivers of a job, the command line's and the server's: they run the same stages, in the same order, to the same end."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import pytest

from calibration.errors import PROBLEM_TYPE_PREFIX, InvalidModelError, OptimizerError
from engine_builder.config.config import Config
from service.local.local_job import LocalJob, optimize_locally
from service.local.progress import ProgressLines
from service.worker.child_process import StageLimits
from tests.fakes import FakePipeline, executions, fake_model
from tests.service.conftest import Server


@dataclass(frozen=True)
class Ran:
    """What became of a job."""

    end: str  # "succeeded", or the type of the error that ended it
    executed: list[tuple[str, str]]  # ("begin" or "end", name) of every stage, in order
    trials: int  # that were shown
    engine: bytes  # empty where there is none


class DriverContract(ABC):
    """What the pipeline relies on of ``run_stage`` and of the observer."""

    @abstractmethod
    def run(self, plan: dict[str, object]) -> Ran:
        """Run the fake pipeline's job with this plan."""

    def test_stages_run_once_and_in_order_and_their_files_are_delivered(self) -> None:
        ran = self.run({"trials": 2})
        names = ("inspect", "trial/0", "trial/1", "report")
        assert ran.executed == [(event, name) for name in names for event in ("begin", "end")]
        assert (ran.end, ran.trials) == ("succeeded", 2)
        assert ran.engine == b"engine of " + fake_model(trials=2)

    def test_input_that_a_stage_refuses_ends_the_job_with_that_error(self) -> None:
        ran = self.run({"fail": "input"})
        assert ran == Ran(PROBLEM_TYPE_PREFIX + InvalidModelError.slug, [], 0, b"")

    def test_a_stage_that_crashes_is_told_to_the_pipeline_which_goes_on(self) -> None:
        ran = self.run({"trials": 1, "fail": "crash"})
        assert ran.executed == [
            ("begin", "inspect"),
            ("end", "inspect"),
            ("begin", "trial/0"),  # and no end
            ("begin", "report"),
            ("end", "report"),
        ]
        assert (ran.end, ran.trials) == ("succeeded", 1)


def executed(record: Path) -> list[tuple[str, str]]:
    lines = [line.split() for line in executions(record)]
    return [(event, name) for event, name, _ in lines]


class TestCommandLine(DriverContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def run(self, plan: dict[str, object]) -> Ran:
        record, stream = self.folder / "record", io.StringIO()
        for name, data in {"model": fake_model(**plan), "calibration": b"numbers"}.items():
            (self.folder / name).write_bytes(data)
        job = LocalJob(
            model=self.folder / "model",
            calibration=self.folder / "calibration",
            validation=None,
            config=Config(),
            output=self.folder / "out",
            limits=StageLimits(memory_bytes=2 * 2**30, seconds=20),
        )
        try:
            with ProgressLines(stream) as view:
                optimize_locally(job, view, pipeline=FakePipeline(record).optimize, stages="tests.fake_stages")
        except OptimizerError as error:
            return Ran(str(error.problem()["type"]), executed(record), self.shown(stream), b"")
        return Ran("succeeded", executed(record), self.shown(stream), (job.output / "engine.onnx").read_bytes())

    def shown(self, stream: io.StringIO) -> int:
        return sum(line.startswith("     trial ") for line in stream.getvalue().splitlines())


class TestServer(DriverContract):
    @pytest.fixture(autouse=True)
    def _server(self, server: Server) -> None:
        self.server = server

    def run(self, plan: dict[str, object]) -> Ran:
        before = len(executed(self.server.record))
        job = self.server.wait(self.server.submit(**plan)["id"])
        done = executed(self.server.record)[before:]
        assert isinstance(job["trials"], list)
        if isinstance(job["error"], dict):
            return Ran(str(job["error"]["type"]), done, len(job["trials"]), b"")
        engine = self.server.client.get(f"/v1/jobs/{job['id']}/engine").content
        return Ran(str(job["state"]), done, len(job["trials"]), engine)
