from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from calibration.errors import InvalidConfigError
from engine_builder.reporting.body.report_body import Made, body_json
from engine_builder.reporting.body.score_of_loss import ScoreOfLoss
from engine_builder.reporting.comparing.read_jobs import read_jobs
from tests.engine_builder.report_body import BODY

WHOLE = replace(
    BODY, made=Made("m.onnx", "c" * 64, "2026-11-29T19:12:34+00:00", "1.2"), score_of_loss=ScoreOfLoss(1e-3, 1e-2, 0.7, 0.1, 0.2, 3)
)


def written(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(body_json(WHOLE)))
    return folder


def test_a_folder_and_its_report_are_the_same_job(tmp_path: Path) -> None:
    folder = written(tmp_path / "out")
    assert [job.body for job in read_jobs([folder])] == [job.body for job in read_jobs([folder / "report.json"])] == [WHOLE]


def test_jobs_have_names_that_tell_them_apart(tmp_path: Path) -> None:
    folders = [written(tmp_path / name) for name in ("a/out", "b/out", "b/other")]
    assert [job.name for job in read_jobs(folders[1:])] == ["out", "other"]
    assert [job.name for job in read_jobs(folders)] == ["a/out", "b/out", "b/other"]
    assert [job.name for job in read_jobs([folders[0]] * 2)] == ["out (1)", "out (2)"]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"result": 1}'])
def test_what_is_no_report_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(InvalidConfigError, match=r"report\.json: no report of this version") as caught:
        read_jobs([tmp_path])
    assert "run the job again" in caught.value.fix


def test_a_folder_without_a_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match=r"a folder with a report\.json expected"):
        read_jobs([tmp_path / "nowhere"])
