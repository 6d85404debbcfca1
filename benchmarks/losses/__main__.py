"""Holds the predicted losses of uniform and mixed engines against the measured ones: ``python -m benchmarks.losses``.

Nothing is refitted: the predictions are those that a search begins with. The engines of one network are the one with every layer low, the
one of products only, prefixes of the order by loss and random halves. Losses are measured on validation samples, which no probe saw.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx

from benchmarks.kinds.cases import CASES as KINDS
from benchmarks.losses.page import Engine, page
from benchmarks.losses.probed_job import ProbedJob, Probes, Samples
from benchmarks.results_files import RESULTS, environment, write_results
from calibration.number_formats.layer_precision import LayerPrecision
from examples.fashion_mnist.prepare import MODELS, write_calibration, write_validation

SHARES = (0.25, 0.5, 0.75)  # of the layers, low
SEEDS = 2  # random assignments of each share
FEWEST = 3  # layers, for a network to have mixed engines
VALIDATION = 1000  # pictures of the example networks


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A network and its samples."""

    model: onnx.ModelProto
    calibration: Samples
    validation: Samples
    config: Mapping[str, object]


def main() -> int:
    """Measure, write the results, print where they are, and return the exit status."""
    cases = {**{name: _example(name) for name in MODELS}, **{name: _of_kind(name) for name in KINDS}}
    arguments = _arguments(sorted(cases))
    where, start, found = environment(), time.perf_counter(), []
    with tempfile.TemporaryDirectory(prefix="onnx-trt-optimizer-bench-") as folder:
        for name in arguments.only or cases:
            case = cases[name](Path(folder))
            begun = time.perf_counter()
            if case is not None:
                found += engines_of(name, case, Path(folder) / name)
            print(f"{name}: {time.perf_counter() - begun:.0f} s", flush=True)
    values = {
        "environment": where,
        "wall_seconds": time.perf_counter() - start,
        "engines": [asdict(engine) for engine in found],
    }
    day = datetime.datetime.now(tz=datetime.UTC).date()
    for written in write_results("losses", values, page(found, where), arguments.output, day=day):
        print(written)
    return 0


def engines_of(name: str, case: Case, folder: Path) -> list[Engine]:
    """Return what was predicted and measured of every engine of one network."""
    job = ProbedJob(folder, case.model, case.calibration, case.validation, case.config)
    corrected, plain = job.probes(), job.probes(corrected=False)
    found = []
    for index, (assignment, quantized) in enumerate(_assignments(job, corrected)):
        precisions = {item.layer: item.precision for item in quantized}
        said, before = corrected.losses.predict(precisions), plain.losses.predict(precisions)
        measured = job.measured_loss(precisions, index)
        found.append(Engine(name, assignment, len(precisions), len(job.layers), before.loss, said.loss, said.error, measured))
    return found


def _assignments(job: ProbedJob, probes: Probes) -> Iterator[tuple[str, Sequence[LayerPrecision]]]:
    everything = job.layer_precisions
    yield "all low", everything
    if len(job.products) < len(everything):
        yield "products", job.products
    order = probes.orders["loss"]
    for share in SHARES if len(everything) >= FEWEST else ():
        count = round(share * len(everything))
        yield f"{share:.0%} by loss", order[:count]
        for seed in range(SEEDS):
            yield f"{share:.0%} random", [everything[place] for place in np.random.default_rng(seed).permutation(len(everything))[:count]]


def _example(name: str) -> Callable[[Path], Case | None]:
    def made(folder: Path) -> Case:
        calibration, validation = (dict(np.load(path)) for path in (write_calibration(folder), write_validation(folder)))
        few = {key: array[:VALIDATION] for key, array in validation.items()}
        return Case(onnx.load(MODELS[name]), calibration, few, {"batch_size": 64})

    return made


def _of_kind(name: str) -> Callable[[Path], Case | None]:
    def made(folder: Path) -> Case | None:
        case = KINDS[name]()
        if case.data.validation is None:
            return None
        return Case(case.model, case.data.calibration, case.data.validation, {"batch_size": case.batch, **case.config})

    return made


def _arguments(names: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.losses", description="Predicted losses against measured ones.")
    parser.add_argument("--only", choices=names, nargs="+", help="these networks alone")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results (default: benchmarks/results)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
