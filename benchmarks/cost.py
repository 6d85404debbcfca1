"""Measures what the probe stages of a job take, from small networks to BERT-base: ``python -m benchmarks.cost --models FOLDER``.

The folder is one that ``benchmarks.models`` filled; without it the example networks alone are measured. A process for each network, and
one after the other.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np

from benchmarks.cost_probe import ProbeCost, StageCost
from benchmarks.models import read_listing
from benchmarks.results_files import RESULTS, environment, environment_line, markdown_table, write_results
from examples.fashion_mnist.prepare import MODELS

MEMORY_BYTES, MEMORY_FACTOR = 300e6, 3.0  # the bar: peak memory of a job against the size of its model
LAYER_LOSSES, SESSIONS, PAIRS, TRACES = "single-layer losses and Gram matrix", "sessions", "pairs", "Hessian traces"
SHAPES = {"input": [3, 224, 224], "pixel_values": [3, 224, 224]}  # of inputs that leave them open


@dataclass(frozen=True, slots=True)
class ModelCost:
    """What the stages took on one network; ``failure`` says why there are no figures."""

    name: str
    weights: str
    size_bytes: int
    cost: ProbeCost | None
    failure: str | None


def main() -> None:
    """Measure, write the results and print where they are."""
    arguments = _arguments()
    where = environment()
    networks = [(f"Fashion-MNIST {name}", path, "trained") for name, path in MODELS.items()]
    if arguments.models is not None:
        listed = sorted(read_listing(arguments.models), key=lambda one: (arguments.models / one.file).stat().st_size)
        networks += [(one.name, arguments.models / one.file, one.weights) for one in listed]
    found = []
    for name, path, weights in networks:
        if arguments.only in (None, name):
            print(f"{name} ...", flush=True)
            found.append(measure(name, path, weights, _samples(path, arguments.samples), arguments.seconds))
    day = datetime.datetime.now(tz=datetime.UTC).date()
    values = {"environment": where, "models": [asdict(one) for one in found]}
    for written in write_results("cost", values, page(found, where), arguments.output, day=day):
        print(written)


def measure(name: str, path: Path, weights: str, samples: int, seconds: float) -> ModelCost:
    """Return what the stages take on one network, in a process of its own.

    Args:
        name: What to call it.
        path: The .onnx file.
        weights: Where its weights are from.
        samples: Samples that are probed.
        seconds: What it may take.
    """
    size = path.stat().st_size
    command = [
        sys.executable,
        "-m",
        "benchmarks.cost_probe",
        str(path),
        "--samples",
        str(samples),
        "--few",
        str(min(samples // 4, 16)),
        "--shapes",
        json.dumps(SHAPES),
    ]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds)
    except subprocess.CalledProcessError as exc:
        return ModelCost(name, weights, size, None, " ".join(exc.stderr.splitlines()[-1:]))
    except subprocess.TimeoutExpired:
        return ModelCost(name, weights, size, None, f"stopped: not done within {seconds:.0f} s of wall clock")
    read = json.loads(done.stdout)
    cost = ProbeCost(**{**read, "stages": tuple(StageCost(**stage) for stage in read["stages"])})
    return ModelCost(name, weights, size, cost, None)


def plain_forwards(cost: ProbeCost) -> float:
    """Return CPU seconds of the single-layer losses and their Gram matrix, with session building, over those of N plain forwards."""
    took = sum(stage.cpu_seconds for stage in cost.stages if stage.stage in (LAYER_LOSSES, SESSIONS))
    return took / (cost.layer_precisions * cost.samples * cost.forward_cpu_seconds)


def peak_against_bar(one: ModelCost) -> float:
    """Return peak memory over 300 MB + 3 times the model; at most 1 is inside the bar."""
    assert one.cost is not None
    peak = max(stage.peak_rss_bytes for stage in one.cost.stages)
    return peak / (MEMORY_BYTES + MEMORY_FACTOR * one.size_bytes)


def growth(costs: Sequence[ProbeCost], stage: str) -> float | None:
    """Return the exponent p of passes per sample ~ N^p over the networks, by least squares of the logarithms; None below two sizes.

    Args:
        costs: One a network.
        stage: Which stage.
    """
    points = [(cost.layer_precisions, _passes_per_sample(cost, stage)) for cost in costs]
    if len({layer_precisions for layer_precisions, _ in points}) < 2:
        return None
    x, y = np.log(np.array(points, dtype=np.float64)).T
    return float(np.polyfit(x, y, 1)[0])


def page(found: Sequence[ModelCost], where: Mapping[str, object]) -> str:
    """Return the page of results."""
    done = [one for one in found if one.cost is not None]
    costs = [cast(ProbeCost, one.cost) for one in done]
    headers = [
        "network",
        "weights",
        "MB",
        "N",
        "samples of single-layer losses",
        "of pairs and traces",
        "batch",
        *(f"{stage}: passes / N" for stage in (LAYER_LOSSES, PAIRS, TRACES)),
    ]
    headers += ["one forward, ms", "single-layer losses / N forwards", "peak MB", "of 300 MB + 3 x model"]
    stage_headers = ["network", "stage", "passes", "wall s", "CPU s", "peak MB so far"]
    exponents = {stage: growth(costs, stage) for stage in (LAYER_LOSSES, PAIRS, TRACES)}
    grown = ", ".join(f"{stage} N^{power:.2f}" for stage, power in exponents.items() if power is not None)
    left = "".join(f"- {one.name} ({one.size_bytes / 1e6:.0f} MB): {one.failure}\n" for one in found if one.failure is not None)
    return (
        "# Cost against N\n\n"
        "What the probes of a job take on one network; N is its number of layer precisions (layers, residual adds and attention matmuls, "
        "at "
        "one low precision). Inputs are made up, since the cost depends on shapes alone: noise, or token ids. The batch is the job's own "
        "choice for the network, at most the samples; one thread, one probe at a time. A job probes single layer precisions on 256 "
        "samples, "
        "pairs on 64 and Hessian traces on 32; here there are fewer, and the cost is proportional to them but for the sessions. A *pass* "
        "runs one sample from a probed layer to the model's end: about half of a plain forward. *Single-layer losses / N forwards*: CPU "
        "seconds of "
        "single-layer losses and Gram matrix, sessions built, over N plain forward passes of the same samples, which a second process "
        "runs after each "
        "batch of probes, so that both see the machine at the same speeds; the wall clock of single-layer losses has these passes in it. "
        "*Peak* is "
        "resident memory of the one process that runs all stages; a job's process tree has the parent besides, and keeps to one stage a "
        "process.\n\n"
        + markdown_table(headers, [_row(one) for one in done])
        + (f"\nNot measured:\n\n{left}" if left else "")
        + f"\nPasses per sample grow with N as: {grown or 'one network says nothing about that'}.\n\n"
        + markdown_table(stage_headers, [_stage_row(one.name, stage) for one in done for stage in cast(ProbeCost, one.cost).stages])
        + f"\n{environment_line(where)} Repeat with `python -m benchmarks.models FOLDER` and `python -m benchmarks.cost --models FOLDER`.\n"
    )


def _row(one: ModelCost) -> list[str]:
    assert one.cost is not None
    cost = one.cost
    return [
        one.name,
        one.weights,
        f"{one.size_bytes / 1e6:.1f}",
        str(cost.layer_precisions),
        str(cost.samples),
        str(cost.few),
        str(cost.batch),
        *(f"{_passes_per_sample(cost, stage) / cost.layer_precisions:.2f}" for stage in (LAYER_LOSSES, PAIRS, TRACES)),
        f"{1000 * cost.forward_cpu_seconds:.2f}",
        f"{plain_forwards(cost):.2f}",
        f"{max(stage.peak_rss_bytes for stage in cost.stages) / 1e6:.0f}",
        f"{peak_against_bar(one):.2f}",
    ]


def _stage_row(name: str, stage: StageCost) -> list[str]:
    figures = (f"{stage.wall_seconds:.1f}", f"{stage.cpu_seconds:.1f}", f"{stage.peak_rss_bytes / 1e6:.0f}")
    return [name, stage.stage, f"{stage.passes:,}", *figures]


def _passes_per_sample(cost: ProbeCost, stage: str) -> float:
    passes = sum(one.passes for one in cost.stages if one.stage == stage)
    return passes / (cost.samples if stage == LAYER_LOSSES else cost.few)


def _samples(path: Path, most: int) -> int:
    """Return how many samples fit the patience of a person: a job's number for small networks, half a batch or less for the largest."""
    size = path.stat().st_size
    return most if size < 5e6 else 16 if size < 100e6 else 8


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description="Measure what the probe stages of a job take.")
    parser.add_argument("--models", type=Path, help="a folder that benchmarks.models filled (default: the example networks alone)")
    parser.add_argument("--only", help="measure one network")
    parser.add_argument(
        "--samples", type=int, default=256, help="samples for networks below 5 MB; larger ones get 16 or 8 (default %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="what one network may take (default %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results (default: benchmarks/results)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
