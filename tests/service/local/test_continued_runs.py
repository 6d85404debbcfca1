"""Runs of the real command, one after the other: what the next one finds of the last."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from engine_builder.pipeline.stage_table import KEPT_STAGES
from service.__main__ import main
from tests.long_cases import mostly_long
from tests.model_text import cnn, samples_for

pytestmark = pytest.mark.usefixtures("stages_of_one_parent")
REPOSITORY = Path(__file__).parents[3]
BUDGET_DEPENDENT = {"hessian"}  # traces are probed as closely as the budget's boundary needs


class Job:
    """A small job whose command can be run again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.errors = ""
        onnx.save_model(cnn(), folder / "net.onnx")
        np.savez(folder / "calibration.npz", **samples_for(cnn(), 40))  # type: ignore[arg-type]  # numpy's stub takes the names for options
        self.budget(0.5)

    def budget(self, min_relative: float) -> None:
        accuracy = {"metric": "agreement", "min_relative": min_relative}
        config = {"search": {"max_trials": 3}, "accuracy": accuracy, "batch_size": 512}  # calls that take a while to time
        (self.folder / "config.json").write_text(json.dumps(config))

    def arguments(self, *more: str) -> list[str]:
        files = {"--calibration": "calibration.npz", "--config": "config.json", "--output": "out"}
        named = [text for option, name in files.items() for text in (option, str(self.folder / name))]
        return ["optimize", str(self.folder / "net.onnx"), *named, *more]

    def stages(self) -> list[str]:
        """Return the stages that the last run computed."""
        return stages_in((self.folder / "out" / "log.txt").read_text())

    def interrupt_after(self, stage: str, number: int) -> list[str]:
        """Run the command, send it the signal once a stage is finished, and return the stages that had begun."""
        command = [sys.executable, "-m", "service", *self.arguments()]
        with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as process:
            try:
                begun: list[str] = []
                deadline = time.monotonic() + 60
                while stage not in begun[:-1]:
                    assert time.monotonic() < deadline
                    assert process.poll() is None
                    time.sleep(0.01)
                    begun = stages_in("".join(path.read_text() for path in (self.folder / "out").glob(".work-*/log.txt")))
                os.kill(process.pid, number)
                _, self.errors = process.communicate(timeout=20)
            finally:
                process.kill()
        return begun


def stages_in(log: str) -> list[str]:
    return re.findall(r"(?m)^--- (\w+)$", log)


def shared(stages: Sequence[str]) -> set[str]:
    return set(stages) & KEPT_STAGES


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long), pytest.param(signal.SIGKILL, marks=pytest.mark.long)]
)
def test_an_interrupted_run_goes_on_where_it_was_and_says_so(job: Job, number: int, capfd: pytest.CaptureFixture[str]) -> None:
    begun = job.interrupt_after("trial", number)
    assert ("Run the same command again to go on from there." in job.errors) is (number == signal.SIGINT)
    assert main(job.arguments()) == 0
    said = re.findall(r"continuing a run of this job that was interrupted: (\d+) stages were done before", capfd.readouterr().err)
    assert len(said) == 1
    assert int(said[0]) in (len(begun) - 1, len(begun), len(begun) + 1)  # the last had begun; it may have ended before the signal came
    assert shared(job.stages()) == set()
    report = job.folder / "out" / "report.json"
    assert job.stages().count("trial") < len(json.loads(report.read_text())["trials"])  # those before the signal are not measured again

    assert main(job.arguments()) == 0  # that one ended: its times are measured again
    assert "continuing" not in capfd.readouterr().err
    assert job.stages().count("trial") == len(json.loads(report.read_text())["trials"])
    assert shared(job.stages()) == set()


def test_another_budget_pays_only_what_depends_on_it(job: Job) -> None:
    assert main(job.arguments()) == 0
    assert {"inspect", "ranges", "biases"} <= shared(job.stages())
    job.budget(0.6)
    assert main(job.arguments()) == 0
    assert shared(job.stages()) <= BUDGET_DEPENDENT
    assert "trial" in job.stages()


@pytest.mark.long
def test_other_samples_are_measured_anew(job: Job) -> None:
    assert main(job.arguments()) == 0
    np.savez(job.folder / "calibration.npz", **samples_for(cnn(), 40, seed=7))  # type: ignore[arg-type]  # as above
    assert main(job.arguments()) == 0
    assert {"inspect", "ranges", "biases"} <= shared(job.stages())


@pytest.mark.parametrize("off", mostly_long(["option", "setting"]))
def test_the_cache_can_be_switched_off(job: Job, off: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(os.environ["XDG_CACHE_HOME"])
    if off == "setting":
        monkeypatch.setenv("ONNX_TRT_OPTIMIZER_CACHE_BYTES", "0")
    assert main(job.arguments(*(["--no-cache"] if off == "option" else []))) == 0
    assert not folder.exists()


@pytest.mark.long
def test_a_cache_that_cannot_be_made_is_said_and_costs_nothing_else(job: Job, capfd: pytest.CaptureFixture[str]) -> None:
    Path(os.environ["XDG_CACHE_HOME"]).write_text("no folder")
    assert main(job.arguments()) == 0
    assert "note: nothing is kept for further runs" in capfd.readouterr().err
