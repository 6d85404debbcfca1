"""Predicts the latencies of mixed engines and measures them: ``python -m benchmarks.predictions``."""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.predictions.engines import mixed_engines
from benchmarks.predictions.measuring import Bench, predicted
from benchmarks.predictions.networks import NETWORKS
from benchmarks.predictions.page import MODELS, page
from benchmarks.results_files import RESULTS, environment, write_results


def main() -> int:
    """Measure, write the results, print where they are, and return the exit status."""
    arguments = _arguments()
    where = environment()
    found = []
    for name in arguments.only or NETWORKS:
        with tempfile.TemporaryDirectory(prefix="onnx-trt-optimizer-predictions-") as folder:
            bench = Bench(NETWORKS[name](), Path(folder))
            layers = [layer.name for layer in bench.layers]
            rng = np.random.default_rng(zlib.crc32(name.encode()))
            found.append(predicted(name, bench, mixed_engines(layers, arguments.engines, rng)))
        said = ", ".join(f"{model} {100 * found[-1].median_error(of):.1f}%" for model, of in MODELS.items())
        print(f"{name}: {said}", flush=True)
    values = {"environment": where, "networks": [asdict(one) for one in found]}
    day = datetime.datetime.now(tz=datetime.UTC).date()
    for written in write_results("predictions", values, page(found, where, arguments.engines), arguments.output, day=day):
        print(written)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.predictions", description="Predict and measure latencies of mixed engines.")
    parser.add_argument("--only", choices=sorted(NETWORKS), nargs="+", help="these networks alone")
    parser.add_argument("--engines", type=int, default=6, help="of each shape (default %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results (default: benchmarks/results)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
