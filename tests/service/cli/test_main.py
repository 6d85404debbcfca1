from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest

from service.__main__ import main
from service.cli import commands
from tests.long_cases import mostly_long

REPOSITORY = Path(__file__).parents[3]
MODEL = """
<ir_version: 8, opset_import: ["": 17]>
net (float[n, 3, 8, 8] picture) => (float[n, 4] scores)
{
    a = Conv <pads = [1, 1, 1, 1]> (picture, w1)
    b = Relu(a)
    c = Conv <pads = [1, 1, 1, 1]> (b, w2)
    d = Relu(c)
    e = GlobalAveragePool(d)
    f = Flatten(e)
    scores = Gemm(f, w3)
}
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    parsed = onnx.parser.parse_model(MODEL)
    for name, shape in (("w1", (8, 3, 3, 3)), ("w2", (8, 8, 3, 3)), ("w3", (8, 4))):
        parsed.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32) / 4, name))
    onnx.save_model(parsed, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "calibration.npz", picture=rng.normal(size=(48, 3, 8, 8)).astype(np.float32))
    return tmp_path / "calibration.npz"


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "service", *map(str, arguments)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell makes its background jobs ignore it, and those theirs
    )


def two_lines(text: str) -> tuple[str, str]:
    error, fix = text.splitlines()[-2:]
    assert error.startswith("error: ")
    assert fix.startswith("fix: ")
    assert "Traceback" not in text
    return error, fix


def test_optimize_writes_the_engine_and_exits_0(model: Path, calibration: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = model.read_bytes()
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"search": {"max_trials": 2}, "accuracy": {"min_relative": 0.5}}))
    status = main(["optimize", str(model), "--calibration", str(calibration), "--config", str(config), "--output", str(tmp_path / "out")])
    printed = capfd.readouterr()
    assert status == 0, printed.err
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"engine.onnx", "result.json", "report.json", "log.txt"} <= names
    assert not any(name.startswith(".") for name in names)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["outcome"] in {"improved", "baseline_kept"}
    assert "latency" in printed.out
    assert "100%" in printed.err
    assert model.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["optimize", "missing.onnx", "--calibration", "{data}", "--output", "{out}"], "missing.onnx: no such file"),
        (["optimize", "{model}", "--calibration", "missing.npz", "--output", "{out}"], "missing.npz: no such file"),
        (["optimize", "{model}", "--calibration", "{data}", "--output", "{out}", "--config", "missing.json"], "missing.json: No such file"),
        (["optimize", "{model}", "--calibration", "{data}", "--output", "{out}", "--config", "{data}"], "it is not JSON"),
        (["optimize", "{model}", "--calibration", "{data}", "--output", "{out}", "--target", "abacus"], "abacus"),
        (["optimize", "{data}", "--calibration", "{data}", "--output", "{out}"], "holds arrays of numpy, an .onnx file expected"),
        (
            ["optimize", "{model}", "--calibration", "{data}", "--output", "{out}", "--metric-model", "m.onnx"],
            "metric model m.onnx: no such",
        ),
        (["submit", "{model}", "--calibration", "{data}", "--metric-model", "m.onnx"], "m.onnx: no such file"),
        (["optimize", "{model}", "--calibration", "{data}", "--output", "{out}", "--metric-model", "{data}"], "found a zip archive"),
        (["optimize", "{model}"], "required"),
        (["juggle"], "juggle"),
        (["list", "--limit", "-5"], "argument --limit: found '-5', expected a whole number from 1 on"),
        (["inspect", "{model}", "--samples", "0"], "argument --samples: found '0'"),
        (["submit", "missing.onnx", "--calibration", "{data}"], "missing.onnx: no such file"),
        (["watch", "j1", "--server", "nowhere"], "server address 'nowhere'"),
    ],
)
def test_what_the_user_can_fix_exits_2_with_two_lines(
    arguments: list[str], expected: str, model: Path, calibration: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    filled = [text.format(model=model, data=calibration, out=tmp_path / "out") for text in arguments]
    try:
        status = main(filled)
    except SystemExit as exc:  # argparse's own way out
        status = exc.code if isinstance(exc.code, int) else -1
    printed = capfd.readouterr()
    assert status == 2, printed.err
    assert expected in " ".join(two_lines(printed.err))
    assert printed.out == ""
    assert not (tmp_path / "out").exists()


def test_server_that_does_not_answer_exits_1(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "j1", "--server", "http://127.0.0.1:1"]) == 1
    assert "serve" in two_lines(capfd.readouterr().err)[1]


def test_targets_of_this_machine_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "--local"]) == 0
    assert "onnxruntime-cpu" in capfd.readouterr().out


@pytest.mark.parametrize(("number", "status"), mostly_long([(signal.SIGINT, 130), (signal.SIGTERM, 143)]))
def test_interrupt_ends_the_child_and_leaves_nothing(model: Path, calibration: Path, tmp_path: Path, number: int, status: int) -> None:
    out = tmp_path / "out"
    with start("optimize", model, "--calibration", calibration, "--output", out) as process:
        try:
            children: list[psutil.Process] = []
            scratch: list[Path] = []
            deadline = time.monotonic() + 30
            # The warm parent, and a stage with its folder: the command may have another child for a moment.
            while (len(children) < 2 or not scratch) and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
                children = psutil.Process(process.pid).children(recursive=True)
                scratch = list(out.glob(".work-*/scratch-*"))
            assert len(children) >= 2
            assert scratch
            assert all(child.cmdline() == psutil.Process(process.pid).cmdline() for child in children)  # forks: it has imported all once
            os.kill(process.pid, number)
            _, errors = process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode == status, errors
    assert children
    _, alive = psutil.wait_procs(children, timeout=2)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
    assert not list(tmp_path.rglob("*work*"))
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (["watch", "7"], "The server goes on with the job"),
        (["submit", "m", "--calibration", "c"], "the server goes on with it"),
        (["optimize", "m", "--calibration", "c", "--output", "o"], "Run the same command again to go on from there."),
        (["optimize", "m", "--calibration", "c", "--output", "o", "--no-cache"], "Run the same command again to start anew."),
        (["download", "7", "--output", "o"], "Run the same command again to start anew."),
    ],
)
def test_interrupt_says_what_becomes_of_the_job(
    arguments: list[str], fix: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "client_of", interrupt)
    monkeypatch.setattr(commands, "settings_from_environment", interrupt)
    monkeypatch.setattr(commands, "check_files", interrupt)
    assert main(arguments) == 130
    assert fix in capfd.readouterr().err


def test_job_goes_through_a_real_server(model: Path, calibration: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"search": {"max_trials": 1}, "accuracy": {"min_relative": 0.5}}))
    with start("serve", "--port", "0", "--data-dir", tmp_path / "data") as server:
        try:
            assert server.stderr is not None
            address = next(word for line in server.stderr if "running on" in line for word in line.split() if word.startswith("http"))
            job = ["--calibration", str(calibration), "--config", str(config), "--server", address, "--watch"]
            status = main(["submit", str(model), *job])
            printed = capfd.readouterr()
            assert status == 0, printed.err
            job_id = printed.out.splitlines()[0]
            assert main(["download", job_id, "--output", str(tmp_path / "out"), "--server", address]) == 0
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=20)
    assert server.returncode in {0, 130}
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"engine.onnx", "report.json", "report.html", "assignment.json", "triton.zip", "log.txt"} <= names
    onnx.checker.check_model(onnx.load(tmp_path / "out" / "engine.onnx"), full_check=True)


HEAVY = {"onnxruntime.capi", "scipy", "matplotlib", "onnx_ir", "sympy"}  # what stages use
WEB = {"httpx", "fastapi", "uvicorn", "sqlalchemy", "dbos"}


@pytest.mark.parametrize(
    ("arguments", "status", "unwanted"),
    [
        (["optimize", "none.onnx", "--calibration", "none.npz", "--output", "out"], 2, HEAVY | WEB),
        (
            ["optimize", "none.onnx", "--calibration", "none.npz", "--output", "out", "--config", "wrong.json"],
            2,
            HEAVY | WEB | {"service.local.local_job", "engine_builder.pipeline.optimize", "engine_builder.backends.registry"},
        ),
        (["serve", "--host", "0.0.0.0"], 2, HEAVY | WEB | {"engine_builder.pipeline.optimize"}),
        (["serve", "--data-dir", "wrong.json"], 2, HEAVY | {"httpx"}),
    ],
    ids=["missing model", "wrong configuration", "server without a key", "server"],
)
def test_a_command_loads_no_library_that_only_others_use(arguments: list[str], status: int, unwanted: set[str], tmp_path: Path) -> None:
    (tmp_path / "wrong.json").write_text('{"acuracy": {}}')
    code = (
        "import sys; from service.__main__ import main; "
        f"assert main({arguments}) == {status}; sys.exit(' '.join({unwanted} & sys.modules.keys()) or 0)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ONNX_TRT_OPTIMIZER_")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**environment, "PYTHONPATH": str(REPOSITORY)}, check=False)
    assert done.returncode == 0


def test_the_runtime_is_told_not_to_report_to_its_makers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    with pytest.raises(SystemExit):
        main(["--version"])
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_a_file_as_data_folder_is_the_users_to_change(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").write_text("a file")
    assert main(["serve", "--port", "0", "--data-dir", str(tmp_path / "data")]) == 2
    detail, fix = two_lines(capfd.readouterr().err)
    assert detail == f"error: data folder {tmp_path / 'data'}: it is a file"
    assert "--data-dir" in fix


def test_help_says_the_exit_statuses(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["submit", "--help"])
    assert "exit status: 0 done" in " ".join(capfd.readouterr().out.split())


@pytest.mark.parametrize("arguments", [["worker", "--role", "cpu"], ["serve", "--role", "api", "--port", "0"]])
def test_a_part_of_the_work_needs_the_database_of_the_others(
    arguments: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--data-dir", str(tmp_path / "data")]) == 2
    assert "error: ONNX_TRT_OPTIMIZER_DATABASE_URL: found none" in capfd.readouterr().err


def test_keys_of_a_shared_database_are_asked_for_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNX_TRT_OPTIMIZER_DATABASE_URL", "postgresql+psycopg://optimizer@127.0.0.1:1/none")
    monkeypatch.setenv("ONNX_TRT_OPTIMIZER_SHARED_DIR", str(tmp_path / "shared"))
    assert main(["serve", "--role", "api", "--host", "0.0.0.0", "--port", "0", "--data-dir", str(tmp_path / "data")]) == 1
    assert "error: database: it cannot be reached" in capfd.readouterr().err
