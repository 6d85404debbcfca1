"""Runs NNCF's accuracy control beside jobs of ours, on the same network, data and budgets: ``python -m benchmarks.nncf_control``.

NNCF is installed into an environment of its own, since it is no dependency of this project. Where it cannot be had or does not finish,
the result says so and why, and our figures stand alone.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import onnx

from benchmarks import nncf_page, nncf_worker
from benchmarks.int8_layers import layer_counts
from benchmarks.jobs import Job, run_command
from benchmarks.nncf_page import NNCF, OURS, Comparison, Way
from benchmarks.plain_int8 import FLOAT, compared
from benchmarks.process_tree import Usage, run_measured
from benchmarks.results_files import RESULTS, environment, write_results
from benchmarks.throwaway import NotInstalledError, environment_with
from benchmarks.uneven_channels import with_uneven_channels
from calibration.accuracy.metrics import Metric
from calibration.data.dataset import read_samples
from calibration.onnx_model.model_io import input_specs, read_model
from engine_builder.config.config import config_from_json
from examples.fashion_mnist.prepare import MODELS, write_calibration, write_validation

BATCH = 64
UNEVEN = "resnet20, uneven channels"
SPREAD = 7  # channels between the convolutions of UNEVEN differ by up to 2 ** 7
NETWORKS: Mapping[str, Callable[[Path], Path]] = {
    "mobilenetv2": lambda folder: MODELS["mobilenetv2"],
    UNEVEN: lambda folder: _uneven(folder),
}
RELATIVE_DROPS = (0.001, 0.0001)
PACKAGES = ("nncf==3.4.0", "onnx", "onnxruntime")


class NncfFailedError(Exception):
    """NNCF did not finish; the message says why."""


@dataclass(frozen=True, slots=True)
class Made:
    """An engine, and what making it took."""

    engine: Path
    evaluations: int
    part_evaluations: int
    pictures: int
    usage: Usage


def main() -> None:
    """Run both under every budget, write the results and print where they are."""
    arguments = _arguments()
    where = environment()
    comparisons: list[Comparison] = []
    with tempfile.TemporaryDirectory(prefix="onnx-trt-optimizer-bench-") as name:
        folder = Path(name)
        python, missing = _nncf(arguments.environment or folder / "environment")
        calibration, validation = write_calibration(folder), write_validation(folder)
        for network, drop in itertools.product(arguments.networks, arguments.relative_drop):
            print(f"{network}, budget {100 * drop:g}% ...", flush=True)
            config = {"batch_size": BATCH, "accuracy": {"metric": "top1", "min_relative": 1 - drop}}
            job = Job(network, NETWORKS[network](folder), calibration, validation, config)
            comparisons.append(compare(job, drop, python, missing, Path(tempfile.mkdtemp(dir=folder)), arguments.seconds))
        versions = None if python is None else packages_of(python)
    values = {"environment": where, "nncf_versions": versions, "comparisons": [asdict(one) for one in comparisons]}
    day = datetime.datetime.now(tz=datetime.UTC).date()
    for written in write_results("nncf", values, nncf_page.page(comparisons, versions, where), arguments.output, day=day):
        print(written)


def compare(job: Job, drop: float, python: Path | None, missing: str | None, folder: Path, seconds: float) -> Comparison:
    """Return what our job and NNCF make of the same files.

    Args:
        job: Our job.
        drop: Share of the float top-1 that may be lost, 0..1.
        python: An interpreter that has NNCF, if one could be had.
        missing: Why not, otherwise.
        folder: Scratch.
        seconds: What NNCF may take.
    """
    samples = len(next(iter(read_samples(job.validation, input_specs(read_model(job.model))).inputs.values())))
    made = {OURS: _ours(job, folder / "ours", samples)}
    if python is not None:
        try:
            made[NNCF] = run_nncf(python, job, drop, folder, seconds)
        except NncfFailedError as exc:
            missing = str(exc)
            print(f"{NNCF}: {missing}", flush=True)
    files = {FLOAT: job.model} | {way: one.engine for way, one in made.items()}
    measured = compared(files, job.validation, config_from_json(dict(job.config)), Metric.TOP1)
    ways = {
        way: Way(
            one.evaluations,
            one.part_evaluations,
            one.pictures,
            one.usage,
            layer_counts(one.engine),
            measured[way]["accuracy"],
            measured[way],
        )
        for way, one in made.items()
    }
    report = json.loads((folder / "ours" / "report.json").read_text(encoding="utf-8"))
    float_layers = layer_counts(job.model)
    widest = widest_trial(report["trials"], float_layers.weighted + float_layers.adds)
    return Comparison(job.name, drop, samples, measured[FLOAT]["accuracy"], ways, widest, missing)


def widest_trial(trials: Sequence[Mapping[str, object]], layers: int) -> nncf_page.Widest | None:
    """Return the trial with the most quantized layers whose drop on all samples is within the budget; None if only the baseline is.

    Args:
        trials: ``trials`` of a report.json.
        layers: Layers that could be quantized.
    """
    found = []
    for trial in trials:
        accuracy = cast("Mapping[str, float] | None", trial["on_all"])
        if accuracy is not None and accuracy["excess"] >= 0 and trial["low_layers"]:
            found.append(nncf_page.Widest(cast(int, trial["low_layers"]), layers, accuracy["score"], str(trial["order"])))
    return max(found, key=lambda one: (one.low_layers, one.accuracy), default=None)


def run_nncf(python: Path, job: Job, drop: float, folder: Path, seconds: float) -> Made:
    """Return what NNCF makes of a job's files, in a process of its own.

    Args:
        python: An interpreter that has NNCF.
        job: The files.
        drop: Share of the float top-1 that may be lost, 0..1.
        folder: Where to write.
        seconds: What it may take before it is ended.

    Raises:
        NncfFailedError: It failed or took longer.
    """
    log = folder / "nncf.log"
    command = ["env", "NNCF_CI=1"]  # so that it reports its use to nobody
    command += ["timeout", f"{seconds:.0f}", str(python), "-P", nncf_worker.__file__, "--model", str(job.model), "--output", str(folder)]
    command += ["--calibration", str(job.calibration), "--validation", str(job.validation), "--relative-drop", str(drop)]
    usage = run_measured(command, log)
    if usage.status:
        last = " ".join(log.read_text(encoding="utf-8", errors="replace").split("\n")[-4:]).strip()
        ended = f"ended after {usage.wall_seconds:.0f} s of wall clock ({usage.cpu_seconds:.0f} CPU s), the most it was given"
        raise NncfFailedError(ended if usage.status == 124 else f"status {usage.status}: {last}")
    counts = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
    return Made(folder / "model.onnx", counts["whole_runs"], counts["part_runs"], counts["pictures"], usage)


def packages_of(python: Path) -> dict[str, str]:
    """Return the versions of what the comparison rests on in another interpreter."""
    names = [package.split("==")[0] for package in (*PACKAGES, "numpy")]
    code = f"import importlib.metadata as m, json; print(json.dumps({{name: m.version(name) for name in {names}}}))"
    return cast("dict[str, str]", json.loads(subprocess.check_output([str(python), "-c", code], text=True)))


def _uneven(folder: Path) -> Path:
    path = folder / "uneven.onnx"
    onnx.save(with_uneven_channels(read_model(MODELS["resnet20"]), spread=SPREAD, seed=0)[0], path)
    return path


def _ours(job: Job, output: Path, samples: int) -> Made:
    usage = run_command(job, output)
    trials = json.loads((output / "report.json").read_text(encoding="utf-8"))["trials"]
    evaluations = len(trials)  # the first is the float model, which only the inspection runs
    return Made(output / "engine.onnx", evaluations, 0, evaluations * samples, usage)


def _nncf(folder: Path) -> tuple[Path | None, str | None]:
    """Return an interpreter that has NNCF, or None and why there is none."""
    try:
        return environment_with(folder, PACKAGES), None
    except NotInstalledError as exc:
        print(exc, flush=True)
        return None, str(exc)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.nncf_control", description="Run NNCF's accuracy control beside jobs of ours."
    )
    drops = ", ".join(map(str, RELATIVE_DROPS))
    parser.add_argument("--relative-drop", type=float, nargs="+", default=RELATIVE_DROPS, help=f"budgets, 0 to 1 (default: {drops})")
    parser.add_argument("--networks", choices=list(NETWORKS), nargs="+", default=list(NETWORKS), help="these alone (default: all)")
    parser.add_argument("--seconds", type=float, default=600.0, help="what NNCF may take under each (default %(default)s)")
    parser.add_argument("--environment", type=Path, help="folder of NNCF's environment, kept and used again (default: one for this run)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results (default: benchmarks/results)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
