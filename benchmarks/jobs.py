"""Runs whole jobs by the command line, as a user does, beside plain int8 of everything: ``python -m benchmarks.jobs``.

A model of your own: ``python -m benchmarks.jobs --model M --calibration C --validation V --config F``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from benchmarks.plain_int8 import FLOAT, compared, quantize_plainly
from benchmarks.process_tree import Usage, run_measured
from benchmarks.results_files import RESULTS, environment, environment_line, markdown_table, write_results
from calibration.accuracy.metrics import Metric
from engine_builder.config.config import config_from_json
from examples.fashion_mnist.prepare import MODELS, write_calibration, write_validation

ENGINE, PLAIN = "engine", "plain int8"
EXAMPLES = (  # network, batch, share of the float network's top-1 that must be kept
    ("mobilenetv2", 64, 0.9995),
    ("resnet20", 64, 0.9995),
    ("mobilenetv2", 64, 0.999),
    ("mobilenetv2", 64, 0.99),
    ("mobilenetv2", 1, 0.9995),
)


@dataclass(frozen=True, slots=True)
class Job:
    """A job and its files."""

    name: str
    model: Path
    calibration: Path
    validation: Path
    config: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a job found and took, and what its engine and plain int8 are worth when both are measured the same way."""

    name: str
    config: Mapping[str, object]
    result: Mapping[str, object]  # result.json
    trials: int
    usage: Usage
    measured: Mapping[str, Mapping[str, float]]  # float, engine and plain int8


def main() -> int:
    """Run the jobs, write the results, print where they are, and return the exit status."""
    arguments = _arguments()
    where = environment()
    with tempfile.TemporaryDirectory(prefix="onnx-trt-optimizer-bench-") as folder:
        results = []
        for job in own_job(arguments) or example_jobs(Path(folder), arguments.only):
            print(f"{job.name} ...", flush=True)
            results.append(run_job(job, Path(folder)))
    values = {"environment": where, "jobs": [asdict(result) for result in results]}
    day = datetime.datetime.now(tz=datetime.UTC).date()
    for written in write_results("jobs", values, page(results, where), arguments.output, day=day):
        print(written)
    return 0


def example_jobs(folder: Path, only: str | None) -> tuple[Job, ...]:
    """Return the jobs on the example networks; their pictures are written into the folder."""
    calibration, validation = write_calibration(folder), write_validation(folder)
    jobs = []
    for network, batch, min_relative in EXAMPLES:
        config: dict[str, object] = {"batch_size": batch, "accuracy": {"metric": "top1", "min_relative": min_relative}}
        jobs.append(Job(example_name(network, batch, min_relative), MODELS[network], calibration, validation, config))
    return tuple(job for job in jobs if only in (None, job.name))


def example_name(network: str, batch: int, min_relative: float) -> str:
    """Return what a job on an example network is called."""
    return f"{network} batch {batch}, {100 * min_relative:g}%"


def own_job(arguments: argparse.Namespace) -> tuple[Job, ...]:
    """Return the job that the command line names; none if it names no model."""
    if arguments.model is None:
        return ()
    config: object = {} if arguments.config is None else json.loads(arguments.config.read_text(encoding="utf-8"))
    return (Job(arguments.model.stem, arguments.model, arguments.calibration, arguments.validation, cast("Mapping[str, object]", config)),)


def run_job(job: Job, folder: Path) -> JobResult:
    """Run one job in a process of its own, then measure what it made beside plain int8.

    Raises:
        SystemExit: The job failed; its last lines are the message.
    """
    scratch = Path(tempfile.mkdtemp(dir=folder))
    output, plain = scratch / "output", scratch / "plain.onnx"
    usage = run_command(job, output)
    result = cast("dict[str, object]", json.loads((output / "result.json").read_text(encoding="utf-8")))
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    quantize_plainly(job.model, job.calibration, plain)
    files = {FLOAT: job.model, ENGINE: output / "engine.onnx", PLAIN: plain}
    metric = Metric(str(_part(result, "verdict")["metric"]))
    measured = compared(files, job.validation, config_from_json(dict(job.config)), metric)
    return JobResult(job.name, job.config, result, len(report["trials"]), usage, measured)


def run_command(job: Job, output: Path) -> Usage:
    """Run one job by the command line, which leaves its files in ``output``, and return what it took.

    Args:
        job: The job.
        output: A folder that is not there; its configuration and log are left beside it.

    Raises:
        SystemExit: The job failed; its last lines are the message.
    """
    config, log = output.with_name("config.json"), output.with_name("job.log")
    config.write_text(json.dumps(job.config), encoding="utf-8")
    command = [sys.executable, "-m", "service", "optimize", str(job.model), "--calibration", str(job.calibration)]
    command += ["--validation", str(job.validation), "--config", str(config), "--output", str(output), "--no-cache"]
    usage = run_measured(command, log)
    if usage.status:
        raise SystemExit(f"{job.name}: the job failed with status {usage.status}:\n" + "\n".join(log.read_text().splitlines()[-20:]))
    return usage


def page(results: Sequence[JobResult], where: Mapping[str, object]) -> str:
    """Return the page of results."""
    headers = [
        "job",
        "outcome",
        "layers",
        "trials",
        "ratio",
        "drop",
        "verdict",
        "wall s",
        "CPU s",
        "peak MB",
        "plain int8: ratio",
        "plain int8: drop",
    ]
    return (
        "# Jobs\n\n"
        "Whole jobs by the command line, with default settings but for batch and budget; the percentage is the share of the float model's "
        "score that must be kept. *Ratio* is latency divided by the float model's, engine, plain int8 and float model timed in turns in "
        "one process after the job (median over nine groups of rounds ± their median absolute deviation). *Drop* is the float model's "
        "accuracy minus the engine's on all validation samples; the search and the verdict saw them, plain int8 was not chosen by them. "
        "*Verdict* is the job's own. Wall, CPU and peak resident memory are of the job's whole process tree (memory sampled, shared pages "
        "counted in each process). *Plain int8* is onnxruntime's `quantize_static` of everything (U8S8, per channel, min-max, the same "
        "calibration file).\n\n"
        + markdown_table(headers, [row(result) for result in results])
        + f"\n{environment_line(where)} Repeat with `python -m benchmarks.jobs`.\n"
    )


def row(result: JobResult) -> list[str]:
    """Return a job's row of the table."""
    chosen, verdict = _part(result.result, "chosen"), _part(result.result, "verdict")
    engine, plain = result.measured[ENGINE], result.measured[PLAIN]
    return [
        result.name,
        str(result.result["outcome"]).replace("_", " "),
        ", ".join(f"{count} {precision}" for precision, count in _part(chosen, "precisions").items()),
        str(result.trials),
        _ratio(engine),
        _drop(result.measured, ENGINE),
        str(verdict["answer"]).replace("_", " "),
        f"{result.usage.wall_seconds:.0f}",
        f"{result.usage.cpu_seconds:.0f}",
        f"{result.usage.peak_rss_bytes / 1e6:.0f}",
        _ratio(plain),
        _drop(result.measured, PLAIN),
    ]


def _ratio(measured: Mapping[str, float]) -> str:
    return f"{measured['ratio']:.3f} ± {measured['ratio_mad']:.3f}"


def _drop(measured: Mapping[str, Mapping[str, float]], name: str) -> str:
    return f"{measured[FLOAT]['accuracy'] - measured[name]['accuracy']:+.4f}"


def _part(value: Mapping[str, object], key: str) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value[key])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jobs", description="Run whole jobs beside plain int8 of everything.")
    parser.add_argument("--only", choices=[example_name(*example) for example in EXAMPLES], help="run one of the example jobs")
    parser.add_argument("--model", type=Path, help="run one job on this model instead; needs the next two as well")
    parser.add_argument("--calibration", type=Path, help="its calibration file")
    parser.add_argument("--validation", type=Path, help="its validation file")
    parser.add_argument("--config", type=Path, help="its configuration (default: every default)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results (default: benchmarks/results)")
    arguments = parser.parse_args()
    given = [getattr(arguments, name) is not None for name in ("model", "calibration", "validation")]
    if any(given) != all(given) or (arguments.config is not None and not any(given)):
        parser.error("--model, --calibration and --validation go together, and --config with them")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
