"""Builds TensorRT-RTX plans of five networks at three batch sizes for two GPUs: ``python -m benchmarks.gains``. No GPU is needed."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.gains.networks import NETWORKS
from benchmarks.gains.page import page
from benchmarks.gains.plans import Gain, gain, prepared
from benchmarks.results_files import RESULTS, environment, write_results
from calibration.number_formats.precision import Precision
from engine_builder.backends.nvidia.tensorrt_rtx import TensorRtRtxBackend

BATCHES = (1, 8, 32)
GPUS = ("RTX 4090", "A10")
CASES = ("fp16", "int8", "int8 where it pays", "fp8", "fp8 where it pays")


def main() -> None:
    """Build, write the results and print where they are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gains", description=__doc__)
    parser.add_argument("--networks", nargs="*", choices=list(NETWORKS), help="only these (default: all)")
    parser.add_argument("--gpus", nargs=2, default=list(GPUS), metavar="GPU", help="what to build for (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results (default: benchmarks/results)")
    arguments = parser.parse_args()
    backends = [TensorRtRtxBackend(gpu) for gpu in arguments.gpus]
    where = environment() | {"tensorrt_rtx": importlib.metadata.version("tensorrt-rtx-cu13"), "gpus": [one.gpu.name for one in backends]}
    start, found, left_out = time.perf_counter(), list[Gain](), dict[str, str]()
    for name in arguments.networks or NETWORKS:
        network = prepared(name)
        for backend in backends:
            for batch in BATCHES:
                for case in CASES:
                    if not backend.gpu.has(Precision(case.split()[0])):
                        continue
                    one = gain(network, batch, case, backend)
                    if isinstance(one, Gain):
                        found.append(one)
                    else:
                        left_out[f"{name}, batch {batch}, {backend.gpu.name}, {case}"] = one
                print(f"{name}, batch {batch}, {backend.gpu.name}: {time.perf_counter() - start:.0f} s", flush=True)
    values = {
        "environment": where,
        "left_out": left_out,
        "took_seconds": time.perf_counter() - start,
        "plans": [asdict(one) for one in found],
    }
    day = datetime.datetime.now(tz=datetime.UTC).date()
    for written in write_results("gains", values, page(found, left_out, where), arguments.output, day=day):
        print(written)


if __name__ == "__main__":
    main()
