"""The demo behind ``make demo``: two real jobs over HTTP against a freshly started server, and the results checked from outside."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn, cast

from calibration.accuracy.resolution import inside_in_words
from calibration.errors import OptimizerError
from examples.fashion_mnist.prepare import MODELS, write_calibration, write_validation
from examples.remeasure import Measurement, measure
from examples.server import ServerStartError, running_server
from service.client.client import Client, job_error
from service.client.views import JobView
from service.local.progress import TrialLines, progress_view

MIN_RELATIVE = 0.9995
PICTURES = 10_000  # in the validation file
# Scored on the same pictures, a few may still flip: sums are rounded in another order at another batch size.
AGREEMENT_FLIPS = 5
# Scored on fewer pictures, that many standard errors of their number may lie between the two figures.
AGREEMENT_STANDARD_ERRORS = 4.0


@dataclass(frozen=True, slots=True)
class Example:
    """One job of the demo."""

    name: str  # also its folder in the output
    title: str
    model: Path
    batch_size: int

    def config(self) -> dict[str, object]:
        """Return the job's configuration; everything that is not here keeps its default."""
        return {"batch_size": self.batch_size, "accuracy": {"metric": "top1", "min_relative": MIN_RELATIVE}}


BATCH_64 = (
    Example("mobilenetv2-batch64", "MobileNetV2-like network, batch 64", MODELS["mobilenetv2"], 64),
    Example("resnet20-batch64", "ResNet-20-like network, batch 64", MODELS["resnet20"], 64),
)
BATCH_1 = Example("mobilenetv2-batch1", "MobileNetV2-like network, batch 1", MODELS["mobilenetv2"], 1)


def main() -> int:
    """Run the demo and return its exit status: 0 if every job succeeded and agrees with the measurement from outside."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description="Optimize example models over HTTP.")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder for engines and reports (default %(default)s)")
    parser.add_argument("--batch1", action="store_true", help="a third job: the first model at batch 1, where int8 gains little")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    os.environ["NO_PROXY"] = ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1")))  # the server is on this machine
    try:
        with tempfile.TemporaryDirectory(prefix="onnx-trt-optimizer-demo-") as folder:
            return _demo(Path(folder), arguments.output, (*BATCH_64, BATCH_1) if arguments.batch1 else BATCH_64)
    except (OptimizerError, ServerStartError) as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130


def result_lines(result: Mapping[str, object]) -> tuple[str, ...]:
    """Return a job's result in words: latency with its spread, layers per precision, accuracy with its interval, verdict."""
    baseline, chosen, verdict = (_object(result, key) for key in ("baseline", "chosen", "verdict"))
    outcome = "the fp32 model is kept: nothing faster stays inside the budget"
    if result["outcome"] == "improved":
        outcome = "a faster engine inside the budget"
    speedup = cast("float", result.get("speedup") or 1.0)
    low, high = cast("tuple[float, float]", verdict["interval"])
    samples = f"{verdict['n']:,} {'held-out samples' if verdict['selection'] == 'held_out' else 'samples, which the search saw too'}"
    return (
        f"outcome       {outcome}",
        f"latency       {_latency(baseline)} -> {_latency(chosen)}: {speedup:.2f} times as fast",
        f"layers        {_precisions(baseline)} -> {_precisions(chosen)}",
        f"accuracy      {verdict['metric']} {baseline['accuracy']:.4f} -> {chosen['accuracy']:.4f}",
        f"              drop {verdict['drop']:+.5f}, between {low:+.5f} and {high:+.5f} (each with {verdict['confidence']:.0%} confidence)",
        f"              on {samples}",
        f"verdict       {_VERDICTS[str(verdict['answer'])]}",
        *_doubt_lines(verdict),
    )


def disagreement(result: Mapping[str, object], engine: Measurement) -> str | None:
    """Return how the reported accuracy contradicts the one measured from outside; None if chance explains the difference."""
    reported = float(cast("float", _object(result, "chosen")["accuracy"]))
    samples = int(cast("int", _object(result, "verdict")["n"]))
    allowed = AGREEMENT_FLIPS / PICTURES
    if samples < PICTURES:
        allowed = AGREEMENT_STANDARD_ERRORS * math.sqrt(engine.top1 * (1 - engine.top1) / samples)
    if abs(reported - engine.top1) <= allowed:
        return None
    return f"DISAGREES with the report: it says top1 {reported:.4f} on {samples:,} samples, more than {allowed:.4f} away"


def _demo(folder: Path, output: Path, examples: tuple[Example, ...]) -> int:
    print("Preparing the pictures ...", flush=True)
    calibration, validation = write_calibration(folder), write_validation(folder)
    print("Starting the service ...", flush=True)
    with running_server(folder) as address, Client(address) as client:
        print(f"Serving on {address}; submitting {len(examples)} jobs, budget {MIN_RELATIVE:.2%} of the fp32 model's top-1.", flush=True)
        started = time.monotonic()
        files = {path: client.upload(path) for path in {calibration, validation, *(example.model for example in examples)}}
        jobs = [client.submit(files[example.model], files[calibration], files[validation], example.config()) for example in examples]
        finished = [_watch(client, example, job) for example, job in zip(examples, jobs, strict=True)]
        print(f"\n{len(examples)} jobs took {time.monotonic() - started:.0f} s.", flush=True)
        failures = 0
        for example, job in zip(examples, finished, strict=True):
            failures += not _show(client, example, job, validation, output / example.name)
    return 1 if failures else 0


def _watch(client: Client, example: Example, job: JobView) -> JobView:
    print(f"\n{example.title}", flush=True)
    with progress_view(sys.stdout) as view:
        trials = TrialLines(lambda text: view.line("     " + text))

        def show(now: JobView) -> None:
            trials.show(now.trials)
            view.update(now.progress, now.in_words)

        return client.watch(job.id, show)


def _show(client: Client, example: Example, job: JobView, validation: Path, folder: Path) -> bool:
    """Download what a job left, measure its engine again and print the result; whether all is well."""
    print(f"\n{example.title}")
    result = job.result
    if job.state != "succeeded" or result is None:
        error = job_error(job)
        print(f"  {job.state}: {error.detail}\n  fix: {error.fix}")
        return False
    shutil.rmtree(folder, ignore_errors=True)  # an earlier demo's files must not pass for this one's
    engine = client.download_engine(job.id, folder)
    for artifact in client.artifacts(job.id):
        if artifact.name != engine.name:
            client.download_artifact(job.id, artifact, folder)
    measured = measure({"model": example.model, "engine": engine}, validation, batch=example.batch_size)
    problem = disagreement(result, measured["engine"])
    for line in (*result_lines(result), *_outside_lines(example, engine, measured, problem), f"report        {folder / 'report.html'}"):
        print(f"  {line}")
    sys.stdout.flush()
    return problem is None


def _outside_lines(example: Example, engine: Path, measured: Mapping[str, Measurement], problem: str | None) -> tuple[str, ...]:
    model, downloaded = measured["model"], measured["engine"]
    same = " (the same file)" if engine.read_bytes() == example.model.read_bytes() else ""
    return (
        f"from outside  plain onnxruntime, {PICTURES:,} pictures: top1 {model.top1:.4f} -> {downloaded.top1:.4f};"
        f" batch {example.batch_size}: {_spread(model)} -> {_spread(downloaded)}{same}",
        f"              {problem or 'agrees with the report'}",
    )


def _object(value: Mapping[str, object], key: str) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value[key])


def _doubt_lines(verdict: Mapping[str, object]) -> tuple[str, ...]:
    chance, needed = verdict.get("probability_over_budget"), verdict.get("samples_needed")
    if verdict["answer"] != "met_on_sample" or not isinstance(chance, float):
        return ()
    settle = f"; at these rates {needed:,} samples would settle it" if isinstance(needed, int) else ""
    return (f"              {inside_in_words(chance)}{settle}",)


def _latency(side: Mapping[str, object]) -> str:
    latency = _object(side, "latency_ms")
    deviation = f" ± {latency['mad']:.3f}" if "mad" in latency else ""
    return f"{latency['median']:.3f}{deviation} ms (p95 {latency['p95']:.3f}, {latency['runs']} runs)"


def _spread(measurement: Measurement) -> str:
    return f"{measurement.median_ms:.3f} ± {measurement.mad_ms:.3f} ms"


def _precisions(side: Mapping[str, object]) -> str:
    return ", ".join(f"{count} {precision}" for precision, count in _object(side, "precisions").items())


def _end(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)  # unwinds, so that the server is stopped and the temporary folder goes


_VERDICTS = {
    "met": "the budget is met, at the confidence stated",
    "met_on_sample": "the budget is likely met, although these samples are too few to be certain",
    "not_met": "the budget is not met",
}


if __name__ == "__main__":
    sys.exit(main())
