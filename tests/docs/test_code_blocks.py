"""Runs what the pages show: page by page, each in a folder with a small model and its samples, against a live server."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from engine_builder.backends.target_checks import check_config
from engine_builder.config.config import config_from_json
from examples.server import SETTINGS_PREFIX, running_server
from tests.docs.pages import PAGES, ROOT, Block, blocks, name_of
from tests.model_text import model_from_text, run

ADDRESS = "127.0.0.1:8000"  # as the pages have it
FIRST = ROOT / "README.md"  # what everyone reads; the other pages take long
PAGE = ROOT / "page.md"  # of blocks that stand in no page
SECONDS = 300.0  # for one block; the slowest, a whole job, takes ten on a quiet machine
ALL = [block for page in PAGES for block in blocks(page) if "not-run" not in block.marks]
RUN = {page: [block for block in ALL if block.page == page and block.language in ("bash", "python", "json")] for page in PAGES}
LIVE = [page for page, found in RUN.items() if any(block.language != "json" for block in found)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("server")) as address:
        yield address.removeprefix("http://")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a model of two layers, 64 samples to calibrate, and 256 with the model's own answers as labels."""
    weights = {"w1": (16, 64), "w2": (4, 16)}
    model = model_from_text(
        """small (float[N,1,8,8] input) => (float[N,4] logits) {
            flat = Flatten(input)
            hidden = Gemm<transB=1>(flat, w1)
            positive = Relu(hidden)
            logits = Gemm<transB=1>(positive, w2)
        }""",
        weights,
    )
    onnx.save(model, tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    calibration, validation = (rng.normal(size=(count, 1, 8, 8)).astype(np.float32) for count in (64, 256))
    np.savez(tmp_path / "calibration.npz", input=calibration)
    labels = run(model, {"input": validation})[0].argmax(axis=1)
    np.savez(tmp_path / "validation.npz", input=validation, labels=labels)
    return tmp_path


@pytest.mark.parametrize("page", [pytest.param(page, marks=() if page == FIRST else pytest.mark.long, id=name_of(page)) for page in LIVE])
def test_the_blocks_of_a_page_run(page: Path, server: str, folder: Path) -> None:
    if shutil.which("curl") is None and any("curl " in block.text for block in RUN[page]):
        pytest.skip("curl is not installed")
    said = ""
    for block in RUN[page]:
        if block.language != "json":
            said = run_block(block, server, folder)
        elif "answer" in block.marks:
            check_answer(block, said)


@pytest.mark.parametrize("block", [block for block in ALL if block.language == "json"], ids=str)
def test_json_is_what_it_says(block: Block) -> None:
    value = json.loads(block.text)
    if "config" in block.words:
        check_config(config_from_json(value))


def test_a_block_that_fails_is_found(server: str, folder: Path) -> None:
    with pytest.raises(AssertionError, match=r"page\.md:1.*status 3"):
        run_block(Block(PAGE, 1, "bash", (), {}, "(exit 3)\necho not reached\n"), server, folder)


def test_variables_are_kept_from_block_to_block(server: str, folder: Path) -> None:
    run_block(Block(PAGE, 1, "bash", (), {}, "NAME='two words'\n"), server, folder)
    assert run_block(Block(PAGE, 2, "bash", (), {}, 'echo "$NAME"\n'), server, folder) == "two words\n"
    assert run_block(Block(PAGE, 3, "python", (), {}, "import os\nprint(os.environ['NAME'])\n"), server, folder) == "two words\n"


@pytest.mark.parametrize(("kind", "text"), [("keys", '{"b": 1}'), ("exact", '{"a": 2}')])
def test_an_answer_of_another_form_is_found(kind: str, text: str) -> None:
    with pytest.raises(AssertionError):
        check_answer(Block(PAGE, 1, "json", (), {"answer": kind}, text), 'sha256:1\n{"a": 1}')


def run_block(block: Block, server: str, folder: Path) -> str:
    """Run a block of bash or Python and return what it printed; variables go through a file from one to the next."""
    text, state = block.text.replace(ADDRESS, server), folder / ".variables"
    state.touch()
    if block.language == "python":
        script = folder / ".block.py"
        script.write_text(text, encoding="utf-8")
        text = f"{shlex.quote(sys.executable)} -W error {shlex.quote(str(script))}\n"
    shell = f"set -euo pipefail\nsource {shlex.quote(str(state))}\nset -a\n{text}set +a\nexport -p > {shlex.quote(str(state))}\n"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS_PREFIX)}
    environment |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", f"{SETTINGS_PREFIX}SERVER": f"http://{server}"}
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    command = ["bash", "-c", shell]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, f"{block}: ended with status {done.returncode}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def check_answer(block: Block, said: str) -> None:
    """Compare a block of JSON with the last line that the block before it printed."""
    shown, found = json.loads(block.text), json.loads(said.strip().splitlines()[-1])
    if block.marks["answer"] == "exact":
        assert shown == found, f"{block}: other than the answer"
    else:
        assert shown.keys() == found.keys(), f"{block}: other keys than the answer"
