"""What it costs that jobs outlast a crash: ``python -m benchmarks.durable [--model M --calibration C --validation V --config F]``.

The job comes in turns by a call in Python, by a server, and by an api, a worker and Postgres. Then several of it run at once on one,
two and four workers.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.durable.sides import CALL, SERVER, WORKER, Cost, called, distributed, served
from benchmarks.jobs import Job, example_jobs, own_job
from benchmarks.results_files import RESULTS, environment, environment_line, markdown_table, write_results

BAR = 0.05  # of the job's CPU seconds, at most


def main() -> int:
    """Measure, write page and figures, print where they are, and return the exit status."""
    arguments = _arguments()
    where = environment()
    fleets: dict[int, Cost] = {}
    with tempfile.TemporaryDirectory(prefix="onnx-trt-optimizer-durable-") as folder:
        job = (own_job(arguments) or example_jobs(Path(folder), None))[0]
        costs = measured(job, arguments.turns)
        for workers in arguments.workers:
            fleets[workers] = distributed(job, workers, arguments.jobs)
            print(f"{arguments.jobs} jobs, {workers} workers: {fleets[workers].wall_seconds:.1f} s", flush=True)
    values = {
        "environment": where,
        "job": {"name": job.name, "config": dict(job.config)},
        "costs": [asdict(one) for one in costs],
        "jobs_at_once": arguments.jobs,
        "workers": {str(workers): asdict(one) for workers, one in fleets.items()},
    }
    text = page(job.name, costs, fleets, arguments.jobs, where)
    day = datetime.datetime.now(tz=datetime.UTC).date()
    for written in write_results(arguments.name, values, text, arguments.output, day=day):
        print(written)
    return 0


def measured(job: Job, turns: int) -> tuple[Cost, ...]:
    """Return the costs of so many turns of the three ways."""
    ways = (called, served, lambda job: distributed(job, 1, 1))
    found: list[Cost] = []
    for turn in range(turns):
        for way in ways[turn % 3 :] + ways[: turn % 3]:
            found.append(way(job))
            print(f"{found[-1]}", flush=True)
    return tuple(found)


def page(name: str, costs: Sequence[Cost], fleets: Mapping[int, Cost], jobs: int, where: Mapping[str, object]) -> str:
    """Return the page of results.

    Args:
        name: Of the job.
        costs: Of all turns of the three ways.
        fleets: What the jobs took together, by the number of workers.
        jobs: How many were submitted at once.
        where: The environment.
    """
    base = [one for one in costs if one.side == CALL]
    rows = []
    for side in (CALL, SERVER, WORKER):
        own = [one for one in costs if one.side == side]
        shares = [cost.cpu_seconds / other.cpu_seconds - 1 for cost, other in zip(own, base, strict=True)]
        rows.append(
            [
                side,
                _spread([one.cpu_seconds for one in own]),
                _spread([one.wall_seconds for one in own]),
                ", ".join(str(one.trials) for one in own),
                "" if side == CALL else f"{statistics.median(shares):+.1%} ({', '.join(f'{share:+.1%}' for share in shares)})",
            ]
        )
    cores = len(os.sched_getaffinity(0))
    one = fleets.get(1)
    speed = [
        [
            str(workers),
            f"{cost.wall_seconds:.1f}",
            f"{cost.cpu_seconds:.1f}",
            str(cost.trials),
            "" if one is None else f"{one.wall_seconds / cost.wall_seconds:.2f}",
            str(min(workers, cores, jobs)),
        ]
        for workers, cost in sorted(fleets.items())
    ]
    several = (
        f"\n## Several workers\n\n{jobs} such jobs submitted at once, on workers of one machine with {cores} processors, so that no more "
        f"than {cores} times is possible; stages use several threads where that helps.\n\n"
        + markdown_table(["workers", "seconds for all", "CPU seconds", "trials", "times as fast as one", "ideal"], speed)
    )
    return (
        f"# What it costs that jobs outlast a crash\n\n{len(base)} turns of one job ({name}); CPU seconds of all processes from the "
        f"submission to the end, what is started once for all jobs left out. The bar is {BAR:.0%} more than the call. A job of another "
        f"number of trials is another amount of work.\n\n{environment_line(where)}\n\n"
        + markdown_table(["way", "CPU seconds: median (range)", "seconds", "trials", "more CPU than the call: median (each turn)"], rows)
        + (several if fleets else "")
    )


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.durable", description="What it costs that jobs outlast a crash.")
    parser.add_argument("--model", type=Path, help="a network of yours (default: the first of the demo)")
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--validation", type=Path)
    parser.add_argument("--config", type=Path, help="the job's configuration, JSON")
    parser.add_argument("--turns", type=int, default=3, help="of the three ways (default %(default)s)")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4], help="numbers of workers (default 1 2 4)")
    parser.add_argument("--jobs", type=int, default=4, help="submitted at once to these (default %(default)s)")
    parser.add_argument("--name", default="durable", help="of the results")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results (default: benchmarks/results)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
