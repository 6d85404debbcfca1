"""How true verdicts from a few samples are, by counts and by margins: ``python -m benchmarks.verdicts``.

Engines of the example networks and simulated ones are known on 10,000 decisions; jobs see n of them and choose (``verdict_jobs``). Stated
are how often what ships is inside its budget, what that costs in speed, how well stated probabilities hold, and how often a claim at 95%
is wrong. Nothing is timed: the figures follow from the seed, the processor's int8 and the library versions.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.results_files import RESULTS, environment, write_results
from benchmarks.verdict_engines import example_fronts
from benchmarks.verdict_jobs import Job, jobs
from benchmarks.verdict_populations import corner_populations, example_populations, simulated_populations
from benchmarks.verdict_summaries import summarized
from benchmarks.verdicts_page import page

SAMPLES = (8, 24, 48, 64, 128, 256, 1000)
BUDGETS = (0.001, 0.005, 0.01, 0.02, 0.05)
REPEATS = {8: 60, 24: 60, 48: 60, 64: 60, 128: 40, 256: 40, 1000: 20}  # jobs of each front, size and budget


def main() -> int:
    """Run every job, write the results, print where they are, and return the exit status."""
    arguments = _arguments()
    where = environment()
    found = summarized(list(all_jobs(arguments.repeats, arguments.seed)), SAMPLES, BUDGETS)
    values = {"environment": where, "seed": arguments.seed, "repeats": arguments.repeats, **asdict(found)}
    day = datetime.datetime.now(tz=datetime.UTC).date()
    for written in write_results("verdicts", values, page(found, where), arguments.output, day=day):
        print(written)
    return 0


def all_jobs(repeats: float, seed: int) -> Iterator[Job]:
    """Yield the jobs of every population.

    Args:
        repeats: How many, in units of ``REPEATS``; at least one.
        seed: Of the simulated populations and of the samples.
    """
    rng = np.random.default_rng(seed)
    populations = [
        *example_populations(list(example_fronts()), BUDGETS),
        *simulated_populations(BUDGETS, rng),
        *corner_populations(BUDGETS, rng),
    ]
    for index, population in enumerate(populations, start=1):
        print(f"{index} of {len(populations)}: {population.name} ({population.group}) ...", flush=True)
        for n in SAMPLES:
            yield from jobs(population, n, max(1, round(REPEATS[n] * repeats)), rng)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.verdicts", description="Hold verdicts from a few samples against the truth."
    )
    parser.add_argument("--repeats", type=float, default=1.0, help="jobs of each kind, in units of the usual number (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results (default %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
