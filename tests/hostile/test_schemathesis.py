"""A kept tool reads the server's description and asks for all that it allows, its limits, and what it does not allow."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.live_server import LiveServer, live_server

pytestmark = pytest.mark.long
EXAMPLES = 5  # of each operation
SECONDS = 600
SUBMIT = "POST /v1/jobs"
RUNS = {
    "all but jobs": ["--exclude-name", SUBMIT, "--phases", "coverage,fuzzing"],
    # That a configuration is refused whose keys contradict each other is not in its schema.
    "jobs": ["--include-name", SUBMIT, "--phases", "fuzzing", "--exclude-checks", "positive_data_acceptance"],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("schemathesis")) as running:
        yield running


@pytest.mark.parametrize("name", RUNS)
def test_nothing_that_it_asks_for_is_answered_otherwise_than_described(name: str, server: LiveServer, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", "--max-examples", str(EXAMPLES), "--seed", "1", "--no-color"]
    command += [*RUNS[name], "--continue-on-failure", "--request-timeout", "60", f"http://127.0.0.1:{server.port}/openapi.json"]
    environment = os.environ | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stdout
    assert re.search("[1-9][0-9]* generated, [1-9][0-9]* passed", done.stdout), done.stdout
    assert server.process.poll() is None
