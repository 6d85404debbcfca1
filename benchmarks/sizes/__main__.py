"""Runs whole jobs on networks of real size and notes what they take: ``python -m benchmarks.sizes``."""

from __future__ import annotations

import argparse
import datetime
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.results_files import RESULTS, environment, write_results
from benchmarks.sizes.cases import CASES
from benchmarks.sizes.page import page
from benchmarks.sizes.sized_job import SizedJob, run_sized_job


def main() -> int:
    """Run the jobs, write the results, print where they are, and return the exit status."""
    arguments = _arguments()
    where = environment()
    found: list[SizedJob] = []
    with tempfile.TemporaryDirectory(prefix="onnx-trt-optimizer-sizes-", dir=arguments.folder) as folder:
        for name in arguments.only or CASES:
            config: dict[str, object] = {"search": {"max_seconds": arguments.max_seconds}, **CASES[name].config}
            place = Path(folder) / name
            job = run_sized_job(name, CASES[name], config, place, calibration=arguments.calibration, validation=arguments.validation)
            found.append(job)
            shutil.rmtree(place)  # gigabytes
            print(
                f"{name}: {job.usage.wall_seconds:.0f} s, {job.usage.cpu_seconds:.0f} CPU s, {job.peak_pss_bytes / 1e6:.0f} MB, "
                f"{job.share_of_allowed:.2f} of what is allowed {job.message}",
                flush=True,
            )
    values = {"environment": where, "jobs": [asdict(one) for one in found]}
    samples = (
        f"{arguments.calibration} samples to calibrate and {arguments.validation} to judge by, "
        f"at most {arguments.max_seconds:g} s of stages before no further trial begins"
    )
    day = datetime.datetime.now(tz=datetime.UTC).date()
    name = "-".join(["sizes", *filter(None, [arguments.suffix.lstrip("-")])])
    for written in write_results(name, values, page(found, where, samples), arguments.output, day=day):
        print(written)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizes", description="Whole jobs on networks of real size.")
    parser.add_argument("--only", choices=list(CASES), nargs="+", help="these networks alone")
    parser.add_argument("--calibration", type=int, default=8, help="samples to calibrate with (default %(default)s)")
    parser.add_argument("--validation", type=int, default=16, help="samples to judge by (default %(default)s)")
    parser.add_argument("--max-seconds", type=float, default=600.0, help="the jobs' search.max_seconds (default %(default)s)")
    parser.add_argument("--folder", type=Path, help="where networks and jobs lie meanwhile: some 20 GB (default: the system's)")
    parser.add_argument("--suffix", default="", help="of the names of the results, joined by a dash")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results (default: benchmarks/results)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
