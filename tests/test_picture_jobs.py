"""From a folder of JPEG files to an engine: on one machine, and on a server by curl, command and Python. By clicks: tests/service/web."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from examples.server import running_server
from onnx_trt_optimizer import Client
from service.__main__ import main
from tests.picture_sets import PREPROCESS, labelled_folder, picture_model, zip_of

CONFIG = {"preprocess": PREPROCESS, "accuracy": {"min_relative": 0.5}, "search": {"max_trials": 2}}
SECONDS = 300.0
WITH_CURL = """
JOB=$(curl -fsS -F model=@$FOLDER/model.onnx -F calibration=@pictures.zip -F "config=<$FOLDER/config.json" $SERVER/v1/jobs \\
    | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')
until curl -fsS -o job.json $SERVER/v1/jobs/$JOB && grep -Eq '"state": ?"(succeeded|failed|cancelled)"' job.json; do sleep 0.2; done
curl -fsS -o engine.onnx $SERVER/v1/jobs/$JOB/engine
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model and labelled pictures that it knows."""
    folder = tmp_path_factory.mktemp("pictures")
    model = picture_model()
    onnx.save(model, folder / "model.onnx")
    labelled_folder(folder / "pictures", model, 48)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of a server on loopback."""
    with running_server(tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.mark.usefixtures("stages_of_one_parent")
def test_a_folder_of_pictures_is_a_calibration_set(folder: Path, tmp_path: Path) -> None:
    arguments = ["optimize", folder / "model.onnx", "--calibration", folder / "pictures", "--config", folder / "config.json", "--no-cache"]
    assert main([*map(str, arguments), "--output", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["verdict"]["metric"] == "top1"  # the labels came from the folders
    assert result["baseline"]["accuracy"] == 1.0  # and the pictures as the model that named them sees them
    report = json.loads((tmp_path / "report.json").read_text())
    assert "labels are names of 3 classes, numbered in sorted order: 'class0' is 0, 'class1' is 1, 'class2' is 2" in json.dumps(report)


@pytest.mark.usefixtures("stages_of_one_parent")
def test_a_folder_without_a_statement_ends_with_what_to_state(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["optimize", folder / "model.onnx", "--calibration", folder / "pictures", "--no-cache", "--output", tmp_path / "out"]
    assert main([*map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert "error: preprocess: it is not stated how the pixels of calibration file 'pictures', 0 to 255, become the float32 values" in said
    assert 'fix: Add to the configuration "preprocess": {"scale": 0.00392156862745098}' in said


def test_curl_sends_a_zip_and_fetches_the_engine(folder: Path, address: str, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    zip_of(folder / "pictures", tmp_path / "pictures.zip")
    environment = os.environ | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "SERVER": address, "FOLDER": str(folder)}
    subprocess.run(["bash", "-euo", "pipefail", "-c", WITH_CURL], cwd=tmp_path, env=environment, check=True, timeout=SECONDS)
    check_engine(tmp_path / "engine.onnx")
    assert json.loads((tmp_path / "job.json").read_text())["result"]["baseline"]["accuracy"] == 1.0


def test_the_command_sends_a_folder_and_fetches_the_engine(
    folder: Path, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--calibration", folder / "pictures", "--config", folder / "config.json", "--server", address]
    assert main(["submit", str(folder / "model.onnx"), *map(str, given), "--watch"]) == 0
    job = capsys.readouterr().out.split()[0]
    assert main(["download", job, "--server", address, "--output", str(tmp_path)]) == 0
    check_engine(tmp_path / "engine.onnx")


def test_python_sends_a_folder_and_fetches_the_engine(folder: Path, address: str, tmp_path: Path) -> None:
    with Client(address) as client:
        job = client.submit(folder / "model.onnx", folder / "pictures", config=CONFIG)
        assert job.wait().baseline.accuracy == 1.0
        engine = job.download(tmp_path).engine_path
    assert engine is not None
    check_engine(engine)


def check_engine(path: Path) -> None:
    """Run an engine in plain onnxruntime."""
    (scores,) = onnxruntime.InferenceSession(path).run(None, {"input": np.zeros((1, 1, 8, 8), np.float32)})
    assert np.shape(scores) == (1, 3)
