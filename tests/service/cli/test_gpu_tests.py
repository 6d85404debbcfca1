from __future__ import annotations

from pathlib import Path

import pytest

from service.cli.gpu_tests import FileOutcome, files_with_gpu_tests, run_gpu_tests
from tests.service.cli.gpu_tests_folder import HEAD, gpu_tests_folder
from tests.tensorrt_stand_in.install import ROOT, install

NO_CUDA = "this onnxruntime has no CUDA"


def tried(place: Path, *bodies: str, seconds: float = 60.0) -> FileOutcome:
    folder = gpu_tests_folder(place, *bodies)
    (file,) = files_with_gpu_tests(folder)
    return run_gpu_tests(file, folder, seconds)


def test_files_without_a_gpu_test_are_left_out(tmp_path: Path) -> None:
    folder = gpu_tests_folder(tmp_path, "pass")
    (folder / "test_other.py").write_text("def test_it():\n    pass\n")
    assert [path.name for path in files_with_gpu_tests(folder)] == ["test_one.py"]


def test_outcomes_and_reasons_are_told(tmp_path: Path) -> None:
    found = tried(tmp_path, "pass", "pytest.skip('no TensorRT')")
    assert found.outcomes == {"test_on_a_gpu": "PASSED", "test_number_2": "SKIPPED"}
    assert (found.has_failed, found.reasons, found.printed) == (False, ("no TensorRT",), ())


def test_a_failure_keeps_its_words_and_no_folder_of_the_machine(tmp_path: Path) -> None:
    found = tried(tmp_path, "assert 1 + 1 == 3, os.getcwd()")
    assert found.has_failed
    assert "assert (1 + 1) == 3" in "\n".join(found.printed)
    assert str(tmp_path) not in "\n".join(found.printed)


def test_a_crash_costs_what_comes_after_it_and_nothing_before(tmp_path: Path) -> None:
    found = tried(tmp_path, "pass", "os.kill(os.getpid(), signal.SIGSEGV)", "pass")
    assert found.outcomes == {"test_on_a_gpu": "PASSED"}
    assert found.ended == "ended by SIGSEGV after test_on_a_gpu"
    assert found.has_failed


def test_a_hang_ends_at_the_limit(tmp_path: Path) -> None:
    found = tried(tmp_path, "time.sleep(600)", seconds=3.0)
    assert str(found.ended).startswith("ended at its limit of 3 s")
    assert found.has_failed


def test_a_file_that_does_not_load_has_failed(tmp_path: Path) -> None:
    folder = gpu_tests_folder(tmp_path, "pass")
    (folder / "test_one.py").write_text(HEAD + "import no_such_module\n")
    found = run_gpu_tests(folder / "test_one.py", folder, 60.0)
    assert found.has_failed
    assert "no_such_module" in "\n".join(found.printed)


@pytest.mark.long
@pytest.mark.parametrize("file", files_with_gpu_tests(ROOT / "tests"), ids=lambda file: file.stem)
def test_the_projects_own_gpu_tests_pass_on_the_stand_in(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in install(tmp_path).items():
        monkeypatch.setenv(name, value)
    found = run_gpu_tests(file, ROOT / "tests", 300.0)
    assert not found.has_failed, "\n".join(found.printed)
    needs_cuda = [NO_CUDA in reason for reason in found.reasons]  # of onnxruntime, which the stand-in is not
    assert "PASSED" in found.outcomes.values() or (needs_cuda and all(needs_cuda))
