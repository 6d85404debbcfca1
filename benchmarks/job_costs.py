"""CPU seconds of whole jobs by two checkouts of this project, run in turns: ``python -m benchmarks.job_costs --old CHECKOUT``.

The jobs are those of the demo and one on a network of three products; a job of your own comes with ``--model M --calibration C
--validation V --config F``. CPU seconds are those of the job's whole process tree; of several runs the least counts. Both checkouts run in
the environment of this one.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.jobs import Job, example_jobs, example_name, own_job
from benchmarks.process_tree import run_measured
from benchmarks.results_files import RESULTS, environment, environment_line, markdown_table, write_results

NEW, OLD = "this checkout", "the other one"
PRODUCTS = "three products"
DEMO = (example_name("mobilenetv2", 64, 0.9995), example_name("resnet20", 64, 0.9995))
FEATURES, HIDDEN, CLASSES, SAMPLES = 64, 512, 10, 512


@dataclass(frozen=True, slots=True)
class JobCost:
    """What one run of a job took and found."""

    job: str
    side: str  # ``NEW`` or ``OLD``
    cpu_seconds: float  # of the process tree
    wall_seconds: float
    trials: int
    layers: str  # how many have which precision
    speedup: float
    drop: float


def main() -> None:
    """Run the jobs in turns, write the results and print where they are."""
    arguments = _arguments()
    where = environment()
    here = Path(__file__).resolve().parents[1]
    found: list[JobCost] = []
    with tempfile.TemporaryDirectory(prefix="onnx-trt-optimizer-bench-") as folder:
        jobs = own_job(arguments) or (*(job for job in example_jobs(Path(folder), None) if job.name in DEMO), products_job(Path(folder)))
        for job in jobs:
            for run in range(arguments.runs):
                sides = ((OLD, arguments.old.resolve()), (NEW, here))
                for side, checkout in sides if run % 2 == 0 else sides[::-1]:
                    print(f"{job.name}, {side} ...", flush=True)
                    found.append(run_job(job, side, checkout, Path(tempfile.mkdtemp(dir=folder))))
    values = {"environment": where, "old": arguments.old_name, "runs": [asdict(one) for one in found]}
    day = datetime.datetime.now(tz=datetime.UTC).date()
    for written in write_results(arguments.name, values, page(found, where, arguments.old_name), arguments.output, day=day):
        print(written)


def products_job(folder: Path) -> Job:
    """Return the job on a network of nothing but products, whose files are written into the folder."""
    rng = np.random.default_rng(0)
    widths = (FEATURES, HIDDEN, HIDDEN, CLASSES)
    nodes, weights, name = [], [], "input"
    for index, (read, written) in enumerate(itertools.pairwise(widths)):
        last = index == len(widths) - 2
        weight = rng.normal(0.0, np.sqrt(2.0 / read), (read, written)).astype(np.float32)
        weights += [numpy_helper.from_array(weight, f"w{index}"), numpy_helper.from_array(np.zeros(written, np.float32), f"b{index}")]
        nodes.append(helper.make_node("Gemm", [name, f"w{index}", f"b{index}"], ["logits" if last else f"h{index}"], name=f"fc{index}"))
        if not last:
            name = f"r{index}"
            nodes.append(helper.make_node("Relu", [f"h{index}"], [name]))
    ends = (("input", FEATURES), ("logits", CLASSES))
    given, made = ([helper.make_tensor_value_info(end, TensorProto.FLOAT, ["N", size])] for end, size in ends)
    graph = helper.make_graph(nodes, "products", given, made, weights)
    model = folder / "products.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), model)
    files = []
    for part in ("calibration", "validation"):
        files.append(folder / f"products-{part}.npz")
        np.savez(files[-1], input=rng.normal(size=(SAMPLES, FEATURES)).astype(np.float32))
    config = {"batch_size": 64, "accuracy": {"metric": "agreement", "min_relative": 0.95}}
    return Job(PRODUCTS, model, files[0], files[1], config)


def run_job(job: Job, side: str, checkout: Path, folder: Path) -> JobCost:
    """Run one job by the command line of a checkout.

    Args:
        job: The job.
        side: Which of the two it is.
        checkout: Its folder.
        folder: Where files go; empty.

    Raises:
        SystemExit: The job failed; its last lines are the message.
    """
    output, config, log = folder / "output", folder / "config.json", folder / "job.log"
    config.write_text(json.dumps(job.config), encoding="utf-8")
    command = [sys.executable, "-m", "service", "optimize", str(job.model), "--calibration", str(job.calibration)]
    command += ["--validation", str(job.validation), "--config", str(config), "--output", str(output), "--no-cache"]
    usage = run_measured(command, log, folder=checkout, environment=os.environ | {"PYTHONPATH": str(checkout)})
    if usage.status:
        raise SystemExit(f"{job.name}: the job failed with status {usage.status}:\n" + "\n".join(log.read_text().splitlines()[-20:]))
    result = json.loads((output / "result.json").read_text(encoding="utf-8"))
    trials = len(json.loads((output / "report.json").read_text(encoding="utf-8"))["trials"])
    layers = ", ".join(f"{count} {precision}" for precision, count in result["chosen"]["precisions"].items())
    speedup, drop = float(result.get("speedup") or 1.0), float(result["verdict"]["drop"])
    return JobCost(job.name, side, usage.cpu_seconds, usage.wall_seconds, trials, layers, speedup, drop)


def page(found: Sequence[JobCost], where: Mapping[str, object], old: str) -> str:
    """Return the page of results.

    Args:
        found: Every run.
        where: The environment.
        old: What the other checkout is called.
    """
    rows = []
    for job in dict.fromkeys(one.job for one in found):
        before, after = (least(found, job, side) for side in (OLD, NEW))
        share = after.cpu_seconds / before.cpu_seconds
        rows.append([job, f"{before.cpu_seconds:.1f}", f"{after.cpu_seconds:.1f}", f"{share:.2f}", *_said(before), *_said(after)])
    headers = ["job", f"CPU s, {old}", "CPU s, now", "share", *(f"{what}, {side}" for side in (old, "now") for what in _SAID)]
    runs = ["job", "side", "CPU s", "wall s", "trials"]
    each = [[one.job, one.side, f"{one.cpu_seconds:.1f}", f"{one.wall_seconds:.0f}", str(one.trials)] for one in found]
    return (
        "# Cost of whole jobs\n\n"
        "CPU seconds, user and system, of the whole process tree of a job by the command line, by two checkouts in turns; the least of "
        "each side's runs. Timed engines run for a span of wall clock, so that on a busy machine both sides take fewer CPU seconds than "
        "on an idle one, and shares are larger or smaller by what the rest has in it.\n\n"
        + markdown_table(headers, rows)
        + "\nEvery run:\n\n"
        + markdown_table(runs, each)
        + f"\n{environment_line(where)} Repeat with `python -m benchmarks.job_costs --old CHECKOUT`.\n"
    )


def least(found: Sequence[JobCost], job: str, side: str) -> JobCost:
    """Return the run of a job by one side that took the fewest CPU seconds."""
    return min((one for one in found if (one.job, one.side) == (job, side)), key=lambda one: one.cpu_seconds)


def _said(one: JobCost) -> list[str]:
    return [str(one.trials), one.layers, f"{one.speedup:.2f}", f"{one.drop:+.4f}"]


_SAID = ("trials", "layers", "speed-up", "drop")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.job_costs", description="CPU seconds of jobs by two checkouts, in turns.")
    parser.add_argument("--old", type=Path, required=True, help="the folder of the other checkout")
    parser.add_argument("--old-name", default="before", help="what it is called on the page (default %(default)s)")
    parser.add_argument("--runs", type=int, default=2, help="of each job by each side (default %(default)s)")
    parser.add_argument("--name", default="job-costs", help="of the files of results (default %(default)s)")
    for name, what in (("model", "run one job on this model instead"), ("calibration", "its samples"), ("validation", "its samples")):
        parser.add_argument(f"--{name}", type=Path, help=what)
    parser.add_argument("--config", type=Path, help="its configuration (default: every default)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results (default: benchmarks/results)")
    arguments = parser.parse_args()
    if len({getattr(arguments, name) is None for name in ("model", "calibration", "validation")}) > 1:
        parser.error("--model, --calibration and --validation go together")
    return arguments


if __name__ == "__main__":
    main()
