"""Simulates a large deployment on the product's own scheduling code: ``python -m benchmarks.deployment --jobs 10000 --seed 0``."""

from __future__ import annotations

import argparse
import datetime
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.deployment.deployment_run import simulate
from benchmarks.deployment.failures import Rates
from benchmarks.deployment.report.capacity import plans
from benchmarks.deployment.report.figures import figures
from benchmarks.deployment.report.page import page
from benchmarks.deployment.report.plots import plot
from benchmarks.deployment.workload import Deployment
from benchmarks.results_files import RESULTS, environment, write_results


def main() -> None:
    """Simulate, write the results and print where they are."""
    arguments = _arguments()
    where = environment()
    deployment = Deployment(cpu_workers=arguments.cpu_workers, load=arguments.load).scaled(arguments.scale)
    outcome = simulate(arguments.jobs, arguments.seed, deployment, Rates())
    planned = tuple(plans(arguments.capacity_jobs, arguments.seed)) if arguments.capacity_jobs else ()
    found = figures(outcome)
    day = datetime.datetime.now(tz=datetime.UTC).date()
    picture = arguments.output / f"deployment-{day.isoformat()}.svg"
    arguments.output.mkdir(parents=True, exist_ok=True)
    picture.write_text(plot(outcome), encoding="utf-8")
    command = " ".join(["python -m benchmarks.deployment", *sys.argv[1:]])
    values = {"environment": where, "command": command, "figures": asdict(found), "capacity": [asdict(one) for one in planned]}
    text = page(outcome, found, planned, where, picture.name, command)
    for written in (*write_results("deployment", values, text, arguments.output, day=day), picture):
        print(written)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deployment", description="A large deployment, simulated.")
    parser.add_argument("--jobs", type=int, default=10_000, help="how many (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="all that is drawn follows from it (default %(default)s)")
    parser.add_argument("--cpu-workers", type=int, default=Deployment().cpu_workers, help="beside 200 GPU workers (default %(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="this share of all these workers (default %(default)s)")
    parser.add_argument("--load", type=float, default=Deployment().load, help="share of what the cpu workers can do (default %(default)s)")
    parser.add_argument("--capacity-jobs", type=int, default=200, help="of each small simulation beside it; 0: none (default %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results (default: benchmarks/results)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
