from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine_builder.stub_driver import NO_COMPILER
from tests.long_cases import mostly_long
from tests.required_tools import is_required

ROOT = Path(__file__).resolve().parent.parent
SKIPPING = """
import pytest

@pytest.mark.skipif(True, reason="no C compiler (gcc or cc) on this machine")
def test_marked(): ...

def test_inside():
    pytest.skip("tensorrt-rtx-cu13 is not installed")

@pytest.fixture
def driver():
    pytest.skip("cuda.core is not installed")

def test_in_a_fixture(driver): ...

def test_of_a_gpu():
    pytest.skip("no NVIDIA driver (libcuda.so.1) on this machine")

@pytest.mark.xfail(reason="no C compiler", strict=True)
def test_expected_to_fail():
    assert False
"""


def outcome(folder: Path, continuous_integration: str | None) -> tuple[int, str]:
    """Return the exit status and the last line of a run of SKIPPING under this repository's conftest.py."""
    (folder / "test_skipping.py").write_text(SKIPPING)
    shutil.copyfile(ROOT / "tests" / "conftest.py", folder / "conftest.py")
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {"PYTHONPATH": str(ROOT)} | ({} if continuous_integration is None else {"CI": continuous_integration})
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:schemathesis", "--rootdir", str(folder)]
    command = [sys.executable, "-m", "pytest", *options, str(folder)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout


def test_on_continuous_integration_a_missing_tool_fails_and_says_how_to_get_it(tmp_path: Path) -> None:
    status, printed = outcome(tmp_path, "true")
    assert status == 1
    assert "1 failed, 1 skipped, 1 xfailed, 2 errors" in printed  # two skipped before the test itself was called
    for name in ("test_marked", "test_inside", "test_in_a_fixture"):
        assert f"{name}: skipped (" in printed
    assert "fix: install what is missing" in printed


@pytest.mark.parametrize("continuous_integration", mostly_long([None, "false"]))
def test_elsewhere_it_skips(continuous_integration: str | None, tmp_path: Path) -> None:
    status, printed = outcome(tmp_path, continuous_integration)
    assert status == 0
    assert "4 skipped, 1 xfailed" in printed


@pytest.mark.parametrize(
    ("reason", "required"),
    [
        (f"Skipped: {NO_COMPILER}", True),
        ("tensorrt-cu13-bindings is not installed", True),
        ("hadolint is not installed; `make test` installs it", True),
        ("pycuda is not installed", False),
        ("tensorrt-cu13 is not installed", False),
    ],
)
def test_only_tools_that_continuous_integration_has_are_required(reason: str, required: bool) -> None:
    assert is_required(reason) is required


def test_the_one_command_of_continuous_integration_says_that_it_is_one() -> None:
    commands = [line.split(" #")[0].strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]
    assert commands.index("export CI=true") < commands.index("make test") < commands.index("make test-long")
