"""Builds real TensorRT-RTX plans and compares what each layer was asked for with what it got: ``python -m benchmarks.plans``.

Every network is built with all layers that may take it in FP16, INT8, FP8 and INT4, and with three seeded random mixtures of these and
float32, for one type of GPU and at one batch size. No GPU is needed, and nothing is timed on one: latencies are predictions. Where real
samples are at hand, the explicit model is run in ONNX Runtime beside the float model and its fake quantization.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.plan_cases import CASES, PlanResult, ranges_of, run_case
from benchmarks.plan_models import LISTED, read_network
from benchmarks.results_files import RESULTS, environment, environment_line, markdown_table, write_results
from calibration.errors import OptimizerError
from engine_builder.backends.achieved_precision import AchievedPrecision
from engine_builder.backends.nvidia.tensorrt_rtx import TensorRtRtxBackend


def main() -> None:
    """Build, write the results and print where they are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plans", description="Compare asked-for with achieved precisions.")
    parser.add_argument("--models", type=Path, nargs="*", default=[], metavar="DIR", help="folders of further networks and their samples")
    parser.add_argument("--networks", nargs="*", choices=[listed.name for listed in LISTED], help="only these (default: all)")
    parser.add_argument("--gpu", default="RTX 4090", help="the GPU to build for (default %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results (default: benchmarks/results)")
    arguments = parser.parse_args()
    try:
        backend = TensorRtRtxBackend(arguments.gpu)
    except OptimizerError as error:
        parser.error(f"{error.detail}; {error.fix}")
    where = environment() | {"tensorrt_rtx": importlib.metadata.version("tensorrt-rtx-cu13"), "gpu": backend.gpu.name}
    start = time.perf_counter()
    results: list[PlanResult] = []
    skipped: dict[str, str] = {}
    inputs: dict[str, str] = {}
    for listed in LISTED:
        if arguments.networks and listed.name not in arguments.networks:
            continue
        network = read_network(listed, arguments.models)
        if isinstance(network, str):
            skipped[listed.name] = network
            print(f"{listed.name}: skipped, {network}", flush=True)
            continue
        inputs[network.name] = f"batch {network.batch}; {network.samples_are}"
        ranges = ranges_of(network)
        for case in CASES:
            found = run_case(network, case, ranges, backend)
            if isinstance(found, str):
                skipped[f"{network.name}, {case}"] = found
            else:
                results.append(found)
            print(f"{network.name}, {case}: {time.perf_counter() - start:.0f} s", flush=True)
    values = {
        "environment": where,
        "inputs": inputs,
        "skipped": skipped,
        "took_seconds": time.perf_counter() - start,
        "plans": [asdict(result) for result in results],
    }
    day = datetime.datetime.now(tz=datetime.UTC).date()
    for written in write_results("plans", values, page(results, skipped, inputs, where), arguments.output, day=day):
        print(written)


def page(results: Sequence[PlanResult], skipped: Mapping[str, str], inputs: Mapping[str, str], where: Mapping[str, object]) -> str:
    """Return the Markdown page."""
    headers = ["network", "assignment", "asked", "layers", "achieved", "differ", "plan MB", "build s", "predicted ms"]
    plans = [
        [
            result.network,
            result.case,
            ", ".join(f"{count} {precision}" for precision, count in sorted(result.asked.items())),
            str(result.layers),
            str(result.layers - len(result.differences)),
            str(len(result.differences)),
            f"{result.plan_bytes / 1e6:.2f}",
            f"{result.build_seconds:.1f}",
            f"{result.predicted_ms:.4f}",
        ]
        for result in results
    ]
    agreements = [
        [
            result.network,
            result.case,
            str(found.samples),
            f"{found.fake_kl:.2e}",
            f"{found.explicit_kl:.2e}",
            f"{found.between_kl:.2e}",
            f"{found.flips:.1%}",
            f"{found.flips_from_float:.1%}",
        ]
        for result in results
        if (found := result.agreement) is not None
    ]
    compared = ["network", "assignment", "samples", "KL fake", "KL explicit", "KL between", "flips", "flips from float"]
    asked, differing = sum(result.layers for result in results), sum(len(result.differences) for result in results)
    return (
        f"# Plans\n\nBuilt by tensorrt-rtx {where['tensorrt_rtx']} for {where['gpu']}, no GPU at hand: **latencies are predicted, not "
        f"measured**. Of {asked} convolutions and products in {len(results)} plans, {asked - differing} are in the precision that they "
        f"were asked for and {differing} are not.\n\n"
        "Layers are convolutions and products; a residual add has no kernel of its own. *Asked* is the assignment as legalized: what only "
        "pays together is left at FP16 together. Mixtures draw for each layer, at random, one of the precisions that it may take, float32 "
        "among them.\n\n"
        + "".join(f"- {name}: {words}.\n" for name, words in inputs.items())
        + "\n"
        + markdown_table(headers, plans)
        + "\n## Every difference\n\n"
        + markdown_table(["network", "assignment", "asked", "got", "layers", "rule", "for example"], _differences(results))
        + "\n## Agreement with fake quantization\n\n"
        "On real samples: KL divergence from the float model of its fake quantization (every layer as its probe computes it, float32 "
        "between them) and of the explicit model (FP16 between them, in ONNX Runtime on a CPU), and of the explicit model from the fake "
        "quantization. *Flips* are samples whose largest logit is another one in the explicit model than in the fake quantization; "
        "ties round either way.\n\n"
        + (markdown_table(compared, agreements) if agreements else "No real samples were at hand.\n")
        + ("\n## Left out\n\n" + "".join(f"- {what}: {why}.\n" for what, why in skipped.items()) if skipped else "")
        + f"\n{environment_line(where)} Repeat with `python -m benchmarks.plans --models DIR`.\n"
    )


def _differences(results: Sequence[PlanResult]) -> list[list[str]]:
    counts: Counter[tuple[str, str, str, str, str]] = Counter()
    examples: dict[tuple[str, str, str, str, str], AchievedPrecision] = {}
    for result in results:
        for row in result.differences:
            reason = "" if row.reason is None else f"{row.reason.name}: {row.reason.value}"
            key = (result.network, result.case, row.asked.value, "none" if row.got is None else row.got.value, reason)
            counts[key] += 1
            examples.setdefault(key, row)
    return [[*key[:4], str(count), key[4], f"`{examples[key].layer}`"] for key, count in counts.items()]


if __name__ == "__main__":
    main()
