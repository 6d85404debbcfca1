"""Runs whole jobs on small networks of every kind, and holds what they say against the truth: ``python -m benchmarks.kinds``."""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.kinds.cases import CASES
from benchmarks.kinds.outside import run_case
from benchmarks.kinds.page import page
from benchmarks.results_files import RESULTS, environment, write_results


def main() -> int:
    """Run the jobs, write the results, print where they are, and return the exit status."""
    arguments = _arguments()
    where = environment()
    found = []
    with tempfile.TemporaryDirectory(prefix="onnx-trt-optimizer-kinds-") as folder:
        for name in arguments.only or CASES:
            case = CASES[name]()
            config: dict[str, object] = {"batch_size": case.batch, "accuracy": {"min_relative": arguments.min_relative}, **case.config}
            if arguments.max_seconds is not None:
                config["search"] = {"max_seconds": arguments.max_seconds}
            found.append(run_case(case, config, arguments.min_relative, (arguments.keep or Path(folder)) / name))
            print(
                f"{name}: {found[-1].is_true}, {found[-1].speedup or 0:.2f}x, {found[-1].wall_seconds:.0f} s {found[-1].message}",
                flush=True,
            )
    values = {"environment": where, "jobs": [asdict(one) | {"is_true": one.is_true} for one in found]}
    day = datetime.datetime.now(tz=datetime.UTC).date()
    for written in write_results(
        results_name(arguments.suffix), values, page(found, where, arguments.min_relative), arguments.output, day=day
    ):
        print(written)
    return 0


def results_name(suffix: str) -> str:
    """Return what the results are called; a dash that the suffix begins with is the one that joins it."""
    return "-".join(["kinds", *filter(None, [suffix.lstrip("-")])])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kinds", description="Whole jobs on networks of every kind, held against the truth."
    )
    parser.add_argument("--only", choices=sorted(CASES), nargs="+", help="these networks alone")
    parser.add_argument("--min-relative", type=float, default=0.99, help="share of the float model's quality to keep (default %(default)s)")
    parser.add_argument("--max-seconds", type=float, help="the jobs' search.max_seconds (default: none)")
    parser.add_argument("--keep", type=Path, help="an empty folder in which the files of all jobs are left")
    parser.add_argument("--suffix", default="", help="of the names of the results, joined by a dash: 'after' for kinds-after")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results (default: benchmarks/results)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
