"""Each stage of a real job in a folder of its own, as if each ran in another process: requests and results name all that stages need."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from engine_builder.pipeline.optimize import optimize
from engine_builder.workspace.workspace import Workspace, file_refs
from service.jobs.objects.job_folders import JobFolders, OwnJobFolders
from service.jobs.outcome import collect
from tests.driver import Driver, Json, submitted
from tests.model_text import ModelMaker, cnn
from tests.models import several_outputs
from tests.service.jobs.objects.conftest import Bench
from tests.service.jobs.objects.conftest import bench as bench  # a fixture
from tests.test_end_to_end import BAD_LAYER_BUDGET, one_bad_layer
from tests.test_tensorrt_rtx_job import ADA, needs_builder

JOB = "job"


class Wandering(Driver):
    """Runs each stage in the empty folder of another process, and forgets the folder."""

    def settle(self, bench: Bench) -> None:
        self.bench, self.number = bench, 0

    def __call__(self, name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> Json:
        folders, root = self.another()
        folders.begin(JOB)
        folders.ready(JOB, file_refs(request))
        self.workspace = Workspace(root)
        result = super().__call__(name, stage, request, span)
        folders.made(JOB, file_refs(result))
        return result

    def another(self) -> tuple[JobFolders, Path]:
        """Return the folders of a process that has none yet, and where it has that of the job."""
        self.number += 1
        root = self.bench.root / f"process-{self.number}"
        artifacts = self.bench.process(f"cache-{self.number}")
        return OwnJobFolders(root, artifacts, self.bench.work, lambda _: False), root / JOB


@pytest.mark.parametrize(
    ("maker", "config"),
    [
        pytest.param(one_bad_layer, BAD_LAYER_BUDGET, id="the search asks for losses"),
        pytest.param(
            several_outputs, {"accuracy": {"min_relative": 0.5}, "analysis": "full"}, id="the full analysis", marks=pytest.mark.long
        ),
        pytest.param(cnn, ADA, id="plans of TensorRT-RTX", marks=needs_builder),
    ],
)
def test_a_job_ends_whose_every_stage_runs_in_another_folder(
    bench: Bench, tmp_path: Path, maker: ModelMaker, config: Mapping[str, object]
) -> None:
    _, job = submitted(tmp_path / "first" / JOB, maker(), config=config)
    driver = Wandering(Workspace(tmp_path / "first" / JOB))
    driver.settle(bench)
    OwnJobFolders(tmp_path / "first", bench.process("cache"), bench.work, lambda _: False).laid_out(JOB)
    outcome = optimize(job, driver, driver)

    folders, root = driver.another()
    folders.begin(JOB)
    folders.ready(JOB, (*outcome.artifacts.values(), outcome.engine))
    result, engine, artifacts = collect(outcome, root, bench.process("cache"))
    assert result["outcome"] in {"improved", "baseline_kept"}
    assert engine in artifacts
    report = json.loads((root / outcome.artifacts["report.json"].file).read_bytes())
    assert [trial["failure"] for trial in report["trials"]] == [None] * len(report["trials"])
    assert not any("No such file" in note for note in driver.noted_texts)
