from __future__ import annotations

import json
from pathlib import Path

import pytest

from calibration.errors import InvalidConfigError
from engine_builder.errors import EngineError, UnsupportedTargetError
from service import __main__ as command_line
from service.cli import self_check as module
from service.cli.self_check import run_self_check
from tests.engine_builder.self_check_stages import CLOSE, Answers, PretendedStages

NO_GPU = UnsupportedTargetError("there is no NVIDIA driver", fix="run it on a machine with an NVIDIA GPU")
WRONG = {"gpu_run int8": {"comparison": {**CLOSE, "agreement": 0.2}}}


def test_checks_table_and_verdict_are_printed_and_written(tmp_path: Path) -> None:
    lines: list[str] = []
    run_self_check(tmp_path / "found.json", None, lines.append, lambda line: None, run=PretendedStages())
    written = json.loads((tmp_path / "found.json").read_text())
    assert written["verdict"] in lines
    assert {check["outcome"] for check in written["checks"]} == {"pass"}
    assert written["gpus_row"]["name"] == "RTX 4090"
    assert written["found"]["times"]["timings"]["int8"]["median_ms"] > 0
    assert written["packages"]["onnx"]
    assert lines[-1] == f"Written to {tmp_path / 'found.json'}"


def test_the_file_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    run_self_check(tmp_path / "found.json", None, lambda line: None, lambda line: None, run=PretendedStages())
    text = (tmp_path / "found.json").read_text()
    assert str(tmp_path) not in text
    assert str(Path.home()) + "/" not in text


def test_a_failed_check_ends_in_an_error_after_all_is_printed_and_written(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(EngineError, match=r"1 of \d+ checks failed: int8: accuracy on the GPU") as caught:
        run_self_check(tmp_path / "found.json", None, lines.append, lambda line: None, run=PretendedStages(WRONG))
    assert caught.value.status == 500  # exit status 1
    assert any(line.startswith("FAIL  int8: accuracy on the GPU") for line in lines)
    assert json.loads((tmp_path / "found.json").read_text())["verdict"].startswith("Verdict: FAIL")


@pytest.mark.parametrize(("instead", "status"), [({"gpu_device": NO_GPU}, 0), (WRONG, 1)])
def test_exit_status_says_whether_a_check_failed(
    instead: Answers, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_in_children", lambda folder, progress: PretendedStages(instead))
    assert command_line.main(["self-check", "--output", str(tmp_path / "found.json")]) == status
    printed = capsys.readouterr()
    assert "Verdict: " in printed.out
    assert ("error: self-check: 1 of" in printed.err) is (status == 1)


def test_a_file_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    stages = PretendedStages()
    with pytest.raises(InvalidConfigError, match="cannot be written"):
        run_self_check(tmp_path / "no folder" / "found.json", None, lambda line: None, lambda line: None, run=stages)
    assert stages.calls == []


def test_a_check_that_cannot_begin_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedTargetError, match="RTX 9999"):
        run_self_check(tmp_path / "found.json", "RTX 9999", lambda line: None, lambda line: None, run=PretendedStages())
    assert list(tmp_path.iterdir()) == []


def test_stages_run_in_child_processes_and_say_so(tmp_path: Path) -> None:
    said: list[str] = []
    run = module._in_children(tmp_path, said.append)
    with pytest.raises(UnsupportedTargetError, match="no_such_package is not installed"):
        run("names", {"package": "no_such_package"})
    assert said == ["names no_such_package"]
