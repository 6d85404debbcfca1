"""Whole jobs that ask for a plan without its weights, with a stand-in for TensorRT: over HTTP, and by the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from tests.model_text import cnn, samples_for
from tests.tensorrt_stand_in.fixtures import environment as environment  # a fixture, as the next two
from tests.tensorrt_stand_in.fixtures import place as place
from tests.tensorrt_stand_in.fixtures import server as server
from tests.tensorrt_stand_in.install import ROOT
from tests.tensorrt_stand_in.orders import Effect, Failure, Harm, Orders, Step, give_orders, is_hanging, noted_builds
from tests.tensorrt_stand_in.plan_file import read_plan
from tests.tensorrt_stand_in.server import StandInServer, until

pytestmark = pytest.mark.long
ASKED: Mapping[str, Any] = {
    "target": "tensorrt",
    "precisions": ["int8"],
    "accuracy": {"metric": "cosine", "min_relative": 0.9},
    "calibration": {"repair": False},
    "search": {"max_trials": 2},
    "builder": {"strip_weights": True},
}
PLAN, MODEL, SCRIPT = "engine.plan", "model.explicit.onnx", "refit.py"


def weights(model: bytes) -> dict[str, np.ndarray[Any, Any]]:
    found = onnx.load_model_from_string(model).graph.initializer
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in found}


def put_back(folder: Path, environment: Mapping[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run the script that came with a plan."""
    command = [sys.executable, str(folder / SCRIPT), *options]
    return subprocess.run(command, cwd=folder, env=dict(environment), capture_output=True, text=True, check=False, timeout=120)


def test_a_job_killed_while_it_strips_goes_on_and_its_script_puts_the_weights_back(
    server: StandInServer, place: Path, environment: Mapping[str, str], tmp_path: Path
) -> None:
    give_orders(place, Orders(stripped=Effect(harm=Harm.HANG)))
    job = server.submit(cnn(), ASKED)
    until(lambda: is_hanging(place), "no build hangs")
    before = len(noted_builds(place))
    give_orders(place, Orders())
    server.kill_and_start_again()
    ended = server.wait(job)
    result, told = ended["result"], ended["result"]["stripped"]
    assert (result["outcome"], told["is_stripped"], told["why_not"]) == ("improved", True, None)
    assert [build.is_stripped for build in noted_builds(place)[before:]] == [True]  # of what came before nothing is done again
    assert (told["weights"], told["ratio"]) == ([MODEL], pytest.approx(1.0, abs=0.02))
    assert result["speedup"] == pytest.approx(0.061 / 0.031, rel=0.02)
    report = server.artifact(job, "report.json")
    assert "--stripWeights" in report["trtexec"]
    assert any("refit.py whole.plan" in note for note in report["notes"])  # in the place of triton.zip
    files = {name: server.client.get(f"/v1/jobs/{job}/artifacts/{name}").content for name in (PLAN, MODEL, SCRIPT)}
    assert (len(files[PLAN]), len(files[MODEL])) == (result["engine"]["size_bytes"], told["weights_bytes"])
    assert result["engine"]["size_bytes"] == told["size_bytes"] < told["whole_bytes"]
    assert server.client.get(f"/v1/jobs/{job}/artifacts/triton.zip").status_code == 404
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    plan = read_plan(files[PLAN])
    assert plan is not None
    assert plan.header.stripped  # the plan itself lacks them
    done = put_back(tmp_path, environment, "whole.plan")
    assert done.returncode == 0, done.stderr
    whole = read_plan((tmp_path / "whole.plan").read_bytes())
    assert whole is not None
    assert whole.header.stripped == ()
    expected, found = weights(files[MODEL]), weights(whole.model)
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    (tmp_path / MODEL).write_bytes(cnn().SerializeToString())  # other weights
    refused = put_back(tmp_path, environment)
    assert refused.returncode != 0
    assert f"{MODEL} is not the file that belongs to this script" in refused.stderr


@pytest.mark.parametrize(
    ("orders", "why_not"),
    [
        pytest.param(Orders(failures=(Failure(Step.REFIT, Harm.ERROR),)), "weights could not be put back: IRefitter", id="refused"),
        pytest.param(Orders(stripped=Effect(harm=Harm.CRASH)), "SIGSEGV", id="the builder crashes"),
        pytest.param(Orders(stripped=Effect(is_wrong=True)), "and is outside the accuracy budget", id="inaccurate"),
        pytest.param(Orders(stripped=Effect(times=1.3)), "takes 1.3", id="slower"),
        pytest.param(Orders(keeps_weights=True), "the plan is no smaller", id="no smaller"),
    ],
)
def test_where_it_is_a_loss_the_whole_plan_ships_with_the_reason(server: StandInServer, place: Path, orders: Orders, why_not: str) -> None:
    give_orders(place, orders)
    job = server.submit(cnn(), ASKED)
    ended = server.wait(job)
    assert ended["state"] == "succeeded", ended
    result = ended["result"]
    assert (result["outcome"], result["stripped"]["is_stripped"]) == ("improved", False)
    assert result["speedup"] == pytest.approx(0.061 / 0.031, rel=0.02)
    assert why_not in result["stripped"]["why_not"]
    assert result["stripped"]["why_not"] in result["reason"]
    assert "--stripWeights" not in server.artifact(job, "report.json")["trtexec"]
    page = server.client.get(f"/v1/jobs/{job}/artifacts/report.html").text
    assert "The plan ships with its weights, although it was asked for without" in page
    plan = read_plan(server.client.get(f"/v1/jobs/{job}/artifacts/{PLAN}").content)
    assert plan is not None
    assert plan.header.stripped == ()
    assert server.client.get(f"/v1/jobs/{job}/artifacts/{SCRIPT}").status_code == 404
    assert server.client.get(f"/v1/jobs/{job}/artifacts/triton.zip").status_code == 200


def test_a_baseline_that_is_kept_ships_without_its_weights_too(server: StandInServer, place: Path, environment: Mapping[str, str]) -> None:
    give_orders(place, Orders(low_ms=0.03))  # slower than FP16
    job = server.submit(cnn(), ASKED)
    result = server.wait(job)["result"]
    assert (result["outcome"], result["stripped"]["is_stripped"]) == ("baseline_kept", True)
    assert result["chosen"]["precisions"] == {"fp16": 4}
    assert result["baseline"]["latency_ms"]["median"] == pytest.approx(0.061, rel=0.02)
    folder = place / "baseline"
    folder.mkdir()
    for name in (PLAN, MODEL, SCRIPT):
        (folder / name).write_bytes(server.client.get(f"/v1/jobs/{job}/artifacts/{name}").content)
    done = put_back(folder, environment)
    assert (done.returncode, done.stdout) == (0, f"{PLAN} has its weights back\n"), done.stderr


def test_an_engine_that_is_as_fast_as_asked_for_is_stripped_and_judged_at_the_budget_that_it_keeps(
    server: StandInServer, place: Path
) -> None:
    give_orders(place, Orders())
    asked = {**ASKED, "accuracy": {"metric": "cosine"}, "objective": {"min_speedup": 1.5}}
    result, _ = server.finished(cnn(), asked)
    assert result["stripped"]["is_stripped"], result["stripped"]
    assert result["objective"]["is_reached"]
    assert result["verdict"]["answer"] in ("met", "met_on_sample")


def test_a_plan_whose_weights_are_streamed_is_stripped_and_its_script_sets_the_budget(server: StandInServer, place: Path) -> None:
    give_orders(place, Orders())
    job = server.submit(cnn(), {**ASKED, "builder": {"strip_weights": True, "weight_streaming_mb": 0}})
    result = server.wait(job)["result"]
    assert result["stripped"]["is_stripped"], result["stripped"]
    assert result["chosen"]["latency_ms"]["median"] == pytest.approx(2 * 0.031, rel=0.02)  # as the stand-in streams
    script = server.client.get(f"/v1/jobs/{job}/artifacts/{SCRIPT}").text
    assert "engine.weight_streaming_budget_v2 = min(0, engine.streamable_weights_size)" in script


def test_the_command_line_leaves_the_plan_its_weights_and_the_script(place: Path, environment: Mapping[str, str], tmp_path: Path) -> None:
    give_orders(place, Orders())
    done = optimized(tmp_path, environment)
    assert "  plan      The plan has no weights: " in done.stdout
    assert {PLAN, MODEL, SCRIPT} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert put_back(tmp_path / "out", environment).returncode == 0


@pytest.mark.gpu
def test_a_plan_on_the_gpu_is_stripped_and_its_script_puts_the_weights_back_or_it_says_why_not(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt", reason="tensorrt-cu13 is not installed")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    optimized(tmp_path, environment)
    told = json.loads((tmp_path / "out" / "result.json").read_text())["stripped"]
    if told["is_stripped"]:
        back = put_back(tmp_path / "out", environment, "whole.plan")
        assert back.returncode == 0, back.stderr
        assert (tmp_path / "out" / "whole.plan").stat().st_size > told["size_bytes"]
    else:
        assert told["why_not"], told


def optimized(folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a small job by the command line."""
    (folder / "model.onnx").write_bytes(cnn().SerializeToString())
    np.savez(folder / "calibration.npz", **samples_for(cnn(), 40))  # type: ignore[arg-type]  # numpy's own options
    (folder / "config.json").write_text(json.dumps(ASKED))
    command = [sys.executable, "-m", "service", "optimize", "model.onnx", "--calibration", "calibration.npz"]
    options = ["--config", "config.json", "--output", "out", "--no-cache"]
    done = subprocess.run([*command, *options], cwd=folder, env=dict(environment), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_an_assignment_that_is_built_alone_is_stripped_and_ships_whole_where_that_loses(
    place: Path, environment: Mapping[str, str], tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes(cnn().SerializeToString())
    np.savez(tmp_path / "calibration.npz", **samples_for(cnn(), 40))  # type: ignore[arg-type]  # numpy's own options
    config = {key: value for key, value in ASKED.items() if key not in ("precisions", "search", "calibration")}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "assignment.json").write_text(json.dumps({"Conv_c1": "int8", "Conv_c2": "int8", "*": "fp16"}))
    for orders, is_stripped in ((Orders(stripped=Effect(is_wrong=True)), False), (Orders(), True)):
        give_orders(place, orders)
        command = [sys.executable, "-m", "service", "build", "model.onnx", "--assignment", "assignment.json"]
        options = ["--calibration", "calibration.npz", "--config", "config.json", "--output", "small.plan"]
        done = subprocess.run([*command, *options], cwd=tmp_path, env=dict(environment), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        result = json.loads((tmp_path / "small.plan.json").read_text())["result"]
        assert result["outcome"] == "built"
        assert result["stripped"]["is_stripped"] is is_stripped, result["stripped"]
        assert (tmp_path / SCRIPT).exists() is (tmp_path / MODEL).exists() is is_stripped
    back = put_back(tmp_path, environment)
    assert (back.returncode, back.stdout) == (0, "small.plan has its weights back\n"), back.stderr


def test_a_target_without_such_plans_refuses_at_intake(server: StandInServer) -> None:
    for target, why in (("onnxruntime-cpu", "its engine is the model"), ("tensorrt-rtx", "its builder needs the GPU")):
        config = {"target": target, "builder": {"strip_weights": True}, **({"gpu": "RTX 4090"} if target == "tensorrt-rtx" else {})}
        files = {"model": cnn().SerializeToString(), "calibration": b"", "config": json.dumps(config).encode()}
        answer = server.client.post("/v1/jobs", files=files)
        assert answer.status_code in (400, 422), answer.text
        assert f"builder.strip_weights: found true, expected none for {target}: {why}" in answer.text
