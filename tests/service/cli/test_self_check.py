from __future__ import annotations

import contextlib
import importlib.util
import json
from pathlib import Path

import pytest

from calibration.errors import InvalidConfigError
from engine_builder.errors import EngineError, UnsupportedTargetError
from service import __main__ as command_line
from service.cli import self_check as module
from service.cli.self_check import HURRIED_SECONDS, Clock, need_lines, run_self_check
from tests.engine_builder.self_check_stages import CLOSE, Answers, PretendedStages
from tests.long_cases import mostly_long
from tests.service.cli.gpu_tests_folder import gpu_tests_folder

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
    monkeypatch.setattr(module, "_in_children", lambda folder, progress, clock: PretendedStages(instead))
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
    run = module._in_children(tmp_path, said.append, Clock(None))
    with pytest.raises(UnsupportedTargetError, match="no_such_package is not installed"):
        run("names", {"package": "no_such_package"})
    assert said == ["names no_such_package"]


def test_what_was_found_is_written_after_every_check(tmp_path: Path) -> None:
    output, kept = tmp_path / "found.json", []

    def look(line: str) -> None:
        if line.startswith(("pass", "FAIL", "skip")):
            kept.append(json.loads(output.read_text()))

    run_self_check(output, None, lambda line: None, look, run=PretendedStages())
    assert [len(found["checks"]) for found in kept] == list(range(1, len(kept) + 1))
    assert not any(found["is_finished"] for found in kept)
    written = json.loads(output.read_text())
    assert written["is_finished"]
    assert written["seconds"]["times"] >= 0


def test_what_is_needed_is_said_first(tmp_path: Path) -> None:
    lines: list[str] = []
    run_self_check(tmp_path / "found.json", None, lines.append, lambda line: None, run=PretendedStages())
    assert tuple(lines[: len(need_lines())]) == need_lines()
    assert "TensorRT 10.12 to 11.4" in lines[0]
    assert ("TensorRT is not here" in "".join(lines)) is (importlib.util.find_spec("tensorrt") is None)


def test_a_step_has_what_is_left_of_the_commands_time() -> None:
    now = 0.0
    clock = Clock(200.0, now=lambda: now, started=0.0)
    assert (clock.for_step(60.0), clock.for_step(1800.0)) == (60.0, HURRIED_SECONDS)
    now = 170.0
    assert clock.for_step(60.0) == 30.0
    now = 199.0
    with pytest.raises(UnsupportedTargetError, match=r"not begun: the 200 s"):
        clock.for_step(60.0)
    assert Clock(None).for_step(1800.0) == 1800.0


def test_what_has_not_begun_in_time_is_skipped_and_the_file_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "found.json"
    assert command_line.main(["self-check", "--seconds", "0.5", "--output", str(output)]) == 0
    written = json.loads(output.read_text())
    assert {check["outcome"] for check in written["checks"]} == {"skip"}
    assert "--seconds" in capsys.readouterr().out


def test_tests_that_are_not_there_are_refused_before_any_work(tmp_path: Path) -> None:
    stages = PretendedStages()
    with pytest.raises(InvalidConfigError, match="no tests marked gpu"):
        run_self_check(tmp_path / "found.json", None, lambda line: None, lambda line: None, run=stages, tests=tmp_path)
    assert stages.calls == []


@pytest.mark.parametrize(
    ("body", "instead", "outcome", "words"),
    mostly_long(
        [
            ("pass", {}, "pass", "1 passed"),
            ("assert False, 'wrong'", {}, "FAIL", "1 failed; test_on_a_gpu"),
            ("pytest.skip('no TensorRT')", {}, "skip", "no TensorRT"),
            ("pass", {"cuda_visible": NO_GPU}, "skip", "no GPU to run those of 1 files on"),
        ]
    ),
)
def test_tests_marked_gpu_are_checks_too(body: str, instead: Answers, outcome: str, words: str, tmp_path: Path) -> None:
    tests = gpu_tests_folder(tmp_path, body)
    output = tmp_path / "found.json"
    with contextlib.suppress(EngineError):
        run_self_check(output, None, lambda line: None, lambda line: None, run=PretendedStages(instead), tests=tests)
    (found,) = (check for check in json.loads(output.read_text())["checks"] if "gpu" in check["name"])
    assert found["outcome"] == outcome
    assert words in found["found"]
    assert str(tmp_path) not in output.read_text()
