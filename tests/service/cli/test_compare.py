from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine_builder.reporting.body.report_body import body_json
from service.__main__ import main
from tests.engine_builder.report_body import BODY, KEPT_BASELINE


def test_reports_of_several_jobs_become_one_page(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, body in (("one", BODY), ("two", KEPT_BASELINE)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(body_json(body)))
    page = tmp_path / "compare.html"
    assert main(["compare", str(tmp_path / "one"), str(tmp_path / "two" / "report.json"), "--output", str(page)]) == 0
    assert capfd.readouterr().out == f"{page}\n"
    assert "<h1>2 jobs compared</h1>" in page.read_text(encoding="utf-8")


def test_a_folder_that_is_no_job_exits_2(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(tmp_path), "--output", str(tmp_path / "compare.html")]) == 2
    assert "a folder with a report.json expected" in capfd.readouterr().err
    assert not (tmp_path / "compare.html").exists()
