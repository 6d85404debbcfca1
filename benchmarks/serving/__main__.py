"""How a server on loopback serves: ``python -m benchmarks.serving``.

Uploads of a large file, the health asked for meanwhile, and polls of a job's status at a steady rate, which come in turns with the same job
without them.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import psutil

from benchmarks.jobs import Job, example_jobs, example_name
from benchmarks.results_files import RESULTS, environment, environment_line, markdown_table, write_results
from benchmarks.serving.polling import Paired, Poller, job_seconds
from benchmarks.serving.uploads import Uploads, measured
from examples.server import running_server
from onnx_trt_optimizer import Client

_MANY = 100  # measurements, from which on they are counted
_MIB = 1 << 20
_JOB = example_name("mobilenetv2", 64, 0.9995)


def main() -> int:
    """Measure, write page and figures, print where they are, and return the exit status."""
    arguments = _arguments()
    where = environment()
    with tempfile.TemporaryDirectory(prefix="onnx-trt-optimizer-serving-") as name:
        folder = Path(name)
        (job,) = (one for one in example_jobs(folder, None) if one.name == _JOB)
        with running_server(folder) as address:
            (server,) = psutil.Process().children()
            uploads = measured(address, server, folder, arguments.megabytes * _MIB, arguments.uploads)
            paired = _polled(address, job, arguments.rate, arguments.pairs)
    found = counted({"uploads": asdict(uploads), "polled": asdict(paired)})
    values = {"environment": where, "job": _JOB, "asked_per_second": arguments.rate, **found}
    day = datetime.datetime.now(tz=datetime.UTC).date()
    for written in write_results("serving", values, page(uploads, paired, environment_line(where)), arguments.output, day=day):
        print(written)
    return 0


def counted(values: Mapping[str, object]) -> dict[str, object]:
    """Return values with long lists of seconds as how often each was measured, to a tenth of a millisecond."""
    found: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found[name] = counted(value)
        elif isinstance(value, Sequence) and not isinstance(value, str) and len(value) > _MANY:
            found[name] = {str(seconds): count for seconds, count in sorted(Counter(round(float(one), 4) for one in value).items())}
        elif isinstance(value, Sequence) and not isinstance(value, str):
            found[name] = [counted(one) if isinstance(one, Mapping) else one for one in value]
        else:
            found[name] = value
    return found


def page(uploads: Uploads, paired: Paired, where: str) -> str:
    """Return the page of results.

    Args:
        uploads: What the uploads showed.
        paired: What the polls showed.
        where: The environment in one sentence.
    """
    speeds = np.asarray(uploads.bytes_per_second) / 1e6
    late = np.concatenate([polls.seconds for polls in paired.polls]) * 1e3
    health = np.asarray(uploads.health_seconds) * 1e3
    ratios = np.asarray(paired.polled_seconds) / np.asarray(paired.alone_seconds)
    rows = [
        ["upload with hashing, curl", f"median {np.median(speeds):.0f} MB/s, from {speeds.min():.0f} to {speeds.max():.0f}", "300 MB/s"],
        ["memory that the server grew by meanwhile", f"{uploads.server_growth_bytes / _MIB:.1f} MiB", "64 MiB"],
        ["GET /healthz meanwhile", f"p99 {np.percentile(health, 99):.1f} ms, worst {health.max():.1f} ms", "250 ms"],
        ["status polls a second, really asked", f"{np.mean([polls.per_second for polls in paired.polls]):.0f}", "200"],
        [
            "their answers, from when each was due",
            f"p50 {np.percentile(late, 50):.1f} ms, p99 {np.percentile(late, 99):.1f} ms",
            "p99 50 ms",
        ],
        ["time of the job with polls / without", f"median {np.median(ratios):.3f}, from {ratios.min():.3f} to {ratios.max():.3f}", "1.05"],
    ]
    return (
        f"# How a server on loopback serves\n\n{len(speeds)} uploads of {uploads.size_bytes / _MIB:.0f} MiB each; then {len(ratios)} pairs "
        f"of one job ({_JOB}), in turns without polls and with them. Client and server share the machine.\n\n{where}\n\n"
        + markdown_table(["what", "found", "bar"], rows)
    )


def _polled(address: str, job: Job, rate: float, pairs: int) -> Paired:
    with Client(address) as client:

        def start(number: int) -> str:
            model = onnx.load(job.model)
            model.doc_string = f"run {number}"  # another file, so that nothing is reused
            return client.submit(model, job.calibration, job.validation, config=job.config).id

        def wait(name: str) -> None:
            client.job(name).wait()

        return job_seconds(start, wait, lambda name: Poller(address, f"/v1/jobs/{name}", rate), pairs)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description="Uploads and status polls on a loopback server.")
    parser.add_argument("--megabytes", type=int, default=1024, help="of each upload (default: 1024)")
    parser.add_argument("--uploads", type=int, default=5, help="how many (default: 5)")
    parser.add_argument("--rate", type=float, default=200.0, help="status polls a second (default: 200)")
    parser.add_argument("--pairs", type=int, default=4, help="jobs without polls and with them (default: 4 of each)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results (default: benchmarks/results)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
