"""Runs one job several times and times the engines that it chose together: ``python -m benchmarks.repeats``.

Two runs of a job on one machine are to choose engines that are equally fast, within the spread that their results state, whatever else
the machine does. With ``--beside N`` every second run has N processes beside it that burn a processor each; the engines are timed
without them.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from benchmarks.jobs import EXAMPLES, Job, example_jobs, example_name, run_command
from benchmarks.process_tree import Usage
from benchmarks.results_files import RESULTS, environment, environment_line, markdown_table, write_results
from calibration.data.dataset import read_samples
from calibration.onnx_model.model_io import input_specs, read_model
from engine_builder.backends.onnxruntime.cpu import OrtCpuRunner
from engine_builder.timed_enough import EachKnown
from engine_builder.timing import relative_latency, time_interleaved

FLOAT = "float"
SECONDS, MIN_RUNS, MAX_RUNS = 60.0, 30, 5000  # of all engines together
KNOWN = 0.002  # standard error of every two engines' ratio, at which timing ends


@dataclass(frozen=True, slots=True)
class Repeat:
    """One run of the job, and its engine timed beside those of the other runs."""

    ratio: float  # to the float model's latency, as the job stated it
    stated_spread: float  # of that, median absolute deviation
    retimed: float  # the same of all engines together
    retimed_error: float  # standard error
    engine: str  # SHA-256 of the engine's file
    trials: int
    timed_runs: int  # of all engines of the search together
    usage: Usage
    beside: int  # processes that burned a processor each meanwhile


def main() -> int:
    """Run the job so often, write the results, print where they are, and return the exit status."""
    arguments = _arguments()
    where = environment()
    with tempfile.TemporaryDirectory(prefix="onnx-trt-optimizer-bench-") as folder:
        (job,) = example_jobs(Path(folder), arguments.job)
        repeats = run_repeats(job, Path(folder), arguments.count, arguments.beside)
    values = {"environment": where, "job": job.name, "repeats": [asdict(one) for one in repeats]}
    day = datetime.datetime.now(tz=datetime.UTC).date()
    for written in write_results("repeats", values, page(job.name, repeats, where), arguments.output, day=day):
        print(written)
    return 0


def run_repeats(job: Job, folder: Path, count: int, beside: int = 0) -> tuple[Repeat, ...]:
    """Run a job so often, each time from nothing, and time its engines.

    Args:
        job: The job.
        folder: Where its outputs go.
        count: How often.
        beside: Processes that burn a processor each beside every second run.

    Raises:
        SystemExit: A run failed.
    """
    usages = []
    busy = [beside if index % 2 else 0 for index in range(count)]
    for index in range(count):
        print(f"{job.name}: run {index + 1} of {count}, beside {busy[index]} burning processes ...", flush=True)
        (folder / str(index)).mkdir()
        with burning(busy[index]):
            usages.append(run_command(job, folder / str(index) / "output"))
    engines = {str(index): folder / str(index) / "output" / "engine.onnx" for index in range(count)}
    retimed = retime(job, engines)
    repeats = []
    for name, usage, others in zip(engines, usages, busy, strict=True):
        report = json.loads((folder / name / "output" / "report.json").read_text(encoding="utf-8"))
        result, trials = report["result"], report["trials"]
        repeats.append(
            Repeat(
                1.0 / result["speedup"],
                result["speedup_spread"] / result["speedup"] ** 2,
                *retimed[name],
                result["engine"]["sha256"],
                len(trials),
                sum(trial["latency"]["runs"] for trial in trials if trial["latency"] is not None),
                usage,
                others,
            )
        )
    return tuple(repeats)


@contextlib.contextmanager
def burning(count: int) -> Iterator[None]:
    """Keep so many processors busy."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def retime(job: Job, engines: Mapping[str, Path]) -> dict[str, tuple[float, float]]:
    """Return the ratio of each engine to the float model and its standard error, all timed together by CPU time, one thread."""
    validation = read_samples(job.validation, input_specs(read_model(job.model)))
    batch = int(cast("int", job.config["batch_size"]))
    feeds = {name: array[:batch] for name, array in validation.inputs.items()}
    runners = {FLOAT: OrtCpuRunner(job.model, threads=1)} | {name: OrtCpuRunner(path, threads=1) for name, path in engines.items()}
    calls = {name: functools.partial(runner.run, feeds) for name, runner in runners.items()}
    timings = time_interleaved(
        calls, seconds=SECONDS, min_runs=MIN_RUNS, max_runs=MAX_RUNS, enough=EachKnown(KNOWN), warm_up=1.0, compared_by=time.thread_time
    )
    found = {name: relative_latency(timings[name], timings[FLOAT]) for name in engines}
    return {name: (one.ratio, one.error) for name, one in found.items()}


def page(job: str, repeats: Sequence[Repeat], where: Mapping[str, object]) -> str:
    """Return the page of results."""
    rows = [
        [
            str(index),
            str(one.beside),
            f"{one.ratio:.3f} ± {one.stated_spread:.3f}",
            f"{one.retimed:.3f} ± {one.retimed_error:.3f}",
            one.engine[:8],
            str(one.trials),
            str(one.timed_runs),
            f"{one.usage.wall_seconds:.0f}",
            f"{one.usage.cpu_seconds:.0f}",
        ]
        for index, one in enumerate(repeats, start=1)
    ]
    retimed = [one.retimed for one in repeats]
    different = len({one.engine for one in repeats})
    verb = f"{different} different engine{'s' if different > 1 else ''}; timed together they span"
    furthest = max(abs(one.ratio - one.retimed) for one in repeats)
    return (
        "# Repeats\n\n"
        f"The job {job} run {len(repeats)} times by the command line, each time from nothing. *Stated* is the latency of the engine that "
        "the run chose, by the float model's, as its result states it (± median absolute deviation over groups of rounds). *Together* is "
        "the same with all these engines and the float model timed in turns afterwards (± standard error). *Beside* are processes that "
        "burned a processor each during the run, but not while the engines were timed together. *Runs* are those that all engines of the "
        "search were timed for.\n\n"
        + markdown_table(["run", "beside", "stated", "together", "engine", "trials", "runs", "wall s", "CPU s"], rows)
        + f"\n{verb} {max(retimed) - min(retimed):.3f}, and no run's stated ratio is off by more than {furthest:.3f}.\n"
        + f"\n{environment_line(where)} Repeat with `python -m benchmarks.repeats`.\n"
    )


def _arguments() -> argparse.Namespace:
    names = [example_name(*example) for example in EXAMPLES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.repeats", description="Run one job several times and compare its engines.")
    parser.add_argument("--job", choices=names, default=names[0], help="which of the example jobs (default %(default)s)")
    parser.add_argument("--count", type=int, default=5, help="how often (default %(default)s)")
    parser.add_argument("--beside", type=int, default=0, help="processes that burn beside every second run (default %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results (default %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
