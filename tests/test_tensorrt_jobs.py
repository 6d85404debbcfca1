"""Whole jobs for the target tensorrt, with a stand-in for TensorRT and a stub driver: over HTTP, and by the command line."""

from __future__ import annotations

import html
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fallback_models import escaping
from tests.model_text import cnn, samples_for
from tests.tensorrt_stand_in.fixtures import environment as environment  # a fixture, as the next two
from tests.tensorrt_stand_in.fixtures import place as place
from tests.tensorrt_stand_in.fixtures import server as server
from tests.tensorrt_stand_in.install import ROOT
from tests.tensorrt_stand_in.orders import Failure, Harm, Orders, Step, give_orders, is_hanging, noted_builds
from tests.tensorrt_stand_in.server import StandInServer, until

SMALL: Mapping[str, Any] = {
    "target": "tensorrt",
    "precisions": ["int8"],
    "accuracy": {"metric": "cosine", "min_relative": 0.9},
    "calibration": {"repair": False},
    "search": {"max_trials": 2},
}
HANGS_IN_A_BUILD = Orders(failures=(Failure(Step.BUILD, Harm.HANG),))


def test_a_job_whose_server_is_killed_in_a_build_goes_on_and_ships_a_faster_engine(server: StandInServer, place: Path) -> None:
    give_orders(place, HANGS_IN_A_BUILD)
    job = server.submit(cnn(), SMALL)
    until(lambda: is_hanging(place), "no build hangs")
    give_orders(place, Orders())
    server.kill_and_start_again()
    result = server.wait(job)["result"]
    assert (result["outcome"], result["latency_source"]) == ("improved", "measured")
    assert result["speedup"] == pytest.approx(0.061 / 0.031, rel=0.02)  # as the stand-in has it for three layers
    assert result["environment"]["gpu"] == "NVIDIA Stub 1"
    assert result["environment"]["tensorrt"] == "11.4.0.106"
    assert result["environment"]["clock"] == "CUDA events"
    report = server.artifact(job, "report.json")
    assert {row["got"] for row in report["reached"]} == {"int8"}
    assert all(row["tactic"] for row in report["reached"])
    # What goes with the plan fits together, for tools that read trtexec's files.
    layers, profile = server.artifact(job, "engine.layers.json"), server.client.get(f"/v1/jobs/{job}/artifacts/engine.profile.json").json()
    assert [row["name"] for row in profile[1:]] == [layer["Name"] for layer in layers["Layers"]]
    assert (profile[0]["count"] > 1, sum(row["percentage"] for row in profile[1:])) == (True, pytest.approx(100.0))
    assert report["trtexec"].startswith("trtexec --onnx=model.explicit.onnx --saveEngine=engine.plan ")
    assert "--timingCacheFile=timing.cache" in report["trtexec"]
    assert report["trtexec"] in html.unescape(server.client.get(f"/v1/jobs/{job}/artifacts/report.html").text)
    builds = noted_builds(place)
    assert [build.is_quantized for build in builds] == [False, True, True]  # the baseline once, the trial again
    assert min(build.timed for build in builds[:2]) > 0  # nothing was known of these layers


@pytest.mark.long
def test_a_plan_with_several_profiles_is_scored_and_timed_in_the_one_that_takes_the_batch(server: StandInServer, place: Path) -> None:
    give_orders(place, Orders())
    profiles = [{"min": 1, "opt": 1, "max": 4}, {"min": 5, "opt": 16, "max": 32}]
    job = server.submit(cnn(), {**SMALL, "batch_size": 8, "builder": {"profiles": profiles}})
    ended = server.wait(job)
    assert ended["result"]["outcome"] == "improved", ended
    report = server.artifact(job, "report.json")
    assert "--profile=0 --minShapes=input:1x1x8x8 --optShapes=input:1x1x8x8 --maxShapes=input:4x1x8x8 " in report["trtexec"]
    assert report["trtexec"].endswith("--profile=1 --minShapes=input:5x1x8x8 --optShapes=input:16x1x8x8 --maxShapes=input:32x1x8x8")
    assert {row["got"] for row in report["reached"]} == {"int8"}
    timed = server.client.get(f"/v1/jobs/{job}/artifacts/engine.profile.json").json()[1:]
    assert timed
    assert all(row["name"].endswith(" [profile 1]") for row in timed)
    archive = zipfile.ZipFile(io.BytesIO(server.client.get(f"/v1/jobs/{job}/artifacts/triton.zip").content))
    told = archive.read("model/config.pbtxt").decode()
    assert "max_batch_size: 32\n" in told
    assert '  profile: "0"\n  profile: "1"\n' in told


@pytest.mark.long
def test_engines_whose_weights_are_streamed_are_timed_so(server: StandInServer, place: Path) -> None:
    give_orders(place, Orders())
    latencies: list[list[float]] = []
    for budget in (0, 1):  # all weights are streamed; all fit
        job = server.submit(cnn(), {**SMALL, "builder": {"weight_streaming_mb": budget}})
        ended = server.wait(job)
        assert ended["result"]["outcome"] == "improved", ended
        latencies.append([ended["result"][name]["latency_ms"]["median"] for name in ("baseline", "chosen")])
        assert f"--allowWeightStreaming --weightStreamingBudget={budget}M" in server.artifact(job, "report.json")["trtexec"]
    streamed, resident = latencies
    assert streamed == pytest.approx([2.0 * latency for latency in resident], rel=0.02)  # as the stand-in has it


@pytest.mark.long
def test_a_batch_that_no_profile_takes_fails_the_job_and_says_so(server: StandInServer) -> None:
    job = server.submit(cnn(), {**SMALL, "batch_size": 8, "builder": {"profiles": [{"min": 1, "opt": 1, "max": 4}]}})
    ended = server.wait(job)
    assert ended["state"] == "failed"
    assert "expected one profile that takes 8" in json.dumps(ended["error"])


@pytest.mark.long
def test_a_job_is_cancelled_in_a_build(server: StandInServer, place: Path) -> None:
    give_orders(place, HANGS_IN_A_BUILD)
    job = server.submit(cnn(), SMALL)
    until(lambda: is_hanging(place), "no build hangs")
    assert [build.timed for build in noted_builds(place)[-2:]] == [0, 0]  # the job before left what it measured
    answer = server.client.post(f"/v1/jobs/{job}/cancel")
    assert (answer.status_code, server.wait(job)["state"]) == (200, "cancelled")  # the next test needs the GPU that it held


@pytest.mark.long
def test_a_sticky_cuda_error_costs_one_engine_and_one_that_is_slower_leaves_the_baseline(server: StandInServer, place: Path) -> None:
    give_orders(place, Orders(low_ms=0.03, inspector=10, failures=(Failure(Step.RUN, Harm.STICKY),)))
    result, report = server.finished(cnn(), {**SMALL, "precisions": ["int8", "fp8"], "search": {"max_trials": 3}})
    assert (result["outcome"], result["speedup"]) == ("baseline_kept", 1.0)
    assert result["chosen"]["precisions"] == {"fp16": 4}
    _, broken, slower = report["trials"]
    assert "illegal memory access" in broken["failure"]
    assert slower["latency"]["ratio"] == pytest.approx(0.091 / 0.061, rel=0.02)


@pytest.mark.long
def test_three_builds_that_fail_end_the_search_and_not_the_job(server: StandInServer, place: Path) -> None:
    give_orders(place, Orders(failures=tuple(Failure(Step.BUILD, harm) for harm in (Harm.ERROR, Harm.OUT_OF_MEMORY, Harm.CRASH))))
    result, report = server.finished(cnn(), {**SMALL, "precisions": ["int8", "fp8"], "search": {"max_trials": 9}})
    _, refused, too_large, crashed = (str(trial["failure"]) for trial in report["trials"])
    assert "Could not find any implementation" in refused
    assert "memory" in too_large
    assert "SIGSEGV" in crashed
    assert result["outcome"] == "baseline_kept"


@pytest.mark.long
def test_a_baseline_that_overflows_in_fp16_is_repaired(server: StandInServer, place: Path) -> None:
    give_orders(place, Orders())
    result, report = server.finished(escaping(), {**SMALL, "accuracy": {"metric": "cosine", "min_relative": 0.99}})
    attempts = report["baseline_repair"]["attempts"]
    assert attempts[0]["fits"] is False
    assert result["baseline"]["accuracy"] > 0.999
    assert sorted(result["baseline"]["precisions"].values()) == [1, 3]  # one block of four left FP16


@pytest.mark.long
def test_a_job_of_nine_trials_calls_the_builder_ten_times(place: Path, environment: Mapping[str, str], tmp_path: Path) -> None:
    give_orders(place, Orders())
    before = len(noted_builds(place))
    command = [sys.executable, "-m", "tests.tensorrt_stand_in.counted_job", str(tmp_path / "job")]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    trials = json.loads(done.stdout)["trials"]
    assert len(trials) == 9
    builds = noted_builds(place)[before:]
    # One each, the baseline's among them, and a second one where corrected biases were kept and missed the budget.
    second = sum(trial["bias"] is not None and not trial["met"] for trial in trials)
    assert len(builds) <= len(trials) + second
    assert len({build.sha256 for build in builds}) == len(builds)  # nothing is built twice


@pytest.mark.long
def test_the_command_line_does_the_same(place: Path, environment: Mapping[str, str], tmp_path: Path) -> None:
    give_orders(place, Orders())
    assert optimized(tmp_path, environment)["outcome"] == "improved"
    files = {"engine.plan", "engine.layers.json", "engine.profile.json", "timing.cache", "model.explicit.onnx"}
    assert files <= {path.name for path in (tmp_path / "out").iterdir()}


@pytest.mark.gpu
def test_a_whole_job_on_the_gpu_ends_with_a_measured_engine(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt", reason="tensorrt-cu13 is not installed")
    result = optimized(tmp_path, {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))})
    assert result["outcome"] in ("improved", "baseline_kept")  # the network is small: either is right
    assert result["latency_source"] == "measured"
    assert result["baseline"]["latency_ms"]["median"] > 0
    assert (tmp_path / "out" / "engine.plan").stat().st_size > 0


def optimized(folder: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Run a small job by the command line, and return its result."""
    (folder / "model.onnx").write_bytes(cnn().SerializeToString())
    np.savez(folder / "calibration.npz", **samples_for(cnn(), 40))  # type: ignore[arg-type]  # numpy's own options
    (folder / "config.json").write_text(json.dumps(SMALL))
    command = [sys.executable, "-m", "service", "optimize", "model.onnx", "--calibration", "calibration.npz"]
    options = ["--config", "config.json", "--output", "out", "--no-cache"]
    done = subprocess.run([*command, *options], cwd=folder, env=dict(environment), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads((folder / "out" / "result.json").read_text()))
