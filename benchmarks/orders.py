"""Compares the orders of the search by held-out loss over all prefixes: ``python -m benchmarks.orders``.

Each of several disjoint calibration draws gives every guided order its own measurements, and one random order. All are judged on the same
held-out pictures, which no order saw. Differences are paired by draw, so the intervals are about the choice of calibration pictures; they
say nothing about other networks or other held-out pictures.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.order_measurements import HeldOutLoss, MeasuredOrder, Pictures, measured_orders, measured_ranges, read_network
from benchmarks.results_files import RESULTS, environment, environment_line, markdown_table, write_results
from benchmarks.statistics import Difference, order_quality, paired_difference
from calibration.precision import Precision
from calibration.singles import Decision
from examples.fashion_mnist.prepare import MODELS, PICTURES, network_input

PICTURE = (1, 28, 28)
HELD_OUT_SEED = 1
RANDOM = "random"
SCREEN, PAIRS = "hessian+dependency (screen)", "hessian+dependency (screen and pair tests)"
COMPARISONS = (("hessian", "loss"), (SCREEN, "hessian"), (PAIRS, "hessian"), (PAIRS, SCREEN))
KINDS = {Precision.INT8: "int8, the explicit model in onnxruntime", Precision.INT4: "4-bit weights, simulated"}


@dataclass(frozen=True, slots=True)
class OrderResult:
    """An order over all draws."""

    name: str
    qualities: tuple[float, ...]  # one a draw
    against_random: Difference | None
    forwards: int  # of one draw, each of one picture
    cpu_seconds: float  # of one draw, the mean

    @property
    def quality(self) -> float:
        """Mean over the draws."""
        return float(np.mean(self.qualities))


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One network at one precision."""

    network: str
    precision: Precision
    decisions: int
    orders: tuple[OrderResult, ...]
    comparisons: tuple[tuple[str, str, Difference], ...]
    networks_run: int  # different prefixes, each one run on all held-out pictures
    cpu_seconds: float


def main() -> None:
    """Measure, write the results and print where they are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orders", description="Compare the orders of the search.")
    parser.add_argument("--draws", type=int, default=5, help="disjoint calibration draws, 2 to 8 (default %(default)s)")
    parser.add_argument("--samples", type=int, default=256, help="pictures in each, 64 to 256 (default %(default)s)")
    parser.add_argument("--held-out", type=int, default=256, help="test pictures that judge (default %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results (default: benchmarks/results)")
    arguments = parser.parse_args()
    if not (2 <= arguments.draws <= 8 and 64 <= arguments.samples <= 256 and 1 <= arguments.held_out <= 10_000):
        parser.error("found sizes out of their bounds")
    where = environment()
    start = time.perf_counter()
    sizes = {"draws": arguments.draws, "samples": arguments.samples, "held_out": arguments.held_out}
    # A process each, so that the CPU seconds of one do not hold another's.
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(run_case, name, precision, sizes) for name in MODELS for precision in KINDS]
        cases = []
        for future in waiting:
            cases.append(future.result())
            print(f"{cases[-1].network} {cases[-1].precision}: {time.perf_counter() - start:.0f} s", flush=True)
    took = {"wall_seconds": time.perf_counter() - start, "cpu_seconds": sum(case.cpu_seconds for case in cases)}
    values = {"environment": where, "sizes": sizes, "took": took, "cases": [_case_json(case) for case in cases]}
    day = datetime.datetime.now(tz=datetime.UTC).date()
    for written in write_results("orders", values, page(cases, sizes, where, took), arguments.output, day=day):
        print(written)


def pictures(draws: int, samples: int, held_out: int) -> tuple[list[Pictures], Pictures]:
    """Return disjoint draws of training pictures, and test pictures that judge, as the networks take them."""
    with np.load(PICTURES, allow_pickle=False) as arrays:
        train, test = arrays["train_images"], arrays["test_images"]
    shuffled = np.random.default_rng(0).permutation(len(train))[: draws * samples].reshape(draws, samples)
    chosen = np.sort(np.random.default_rng(HELD_OUT_SEED).choice(len(test), held_out, replace=False))
    return [network_input(train[np.sort(indices)]) for indices in shuffled], network_input(test[chosen])


def run_case(name: str, precision: Precision, sizes: Mapping[str, int]) -> CaseResult:
    """Return what every order is worth on one network at one precision.

    Args:
        name: One of the example networks.
        precision: INT8 or INT4.
        sizes: ``draws``, ``samples`` and ``held_out``.
    """
    start = time.process_time()
    draws, held_out = pictures(**sizes)
    network = read_network(name, MODELS[name], PICTURE)
    judge = HeldOutLoss(network, held_out)
    measured: dict[str, list[MeasuredOrder]] = {}
    qualities: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed, draw in enumerate(draws):
            ranges = measured_ranges(network, draw, Path(scratch))
            orders = {RANDOM: MeasuredOrder(random_order(network.decisions(precision), seed), 0, 0.0)}
            orders |= measured_orders(network, precision, ranges, draw)
            found = judge.of_prefixes([order.decisions for order in orders.values()], ranges, str(seed))
            for (kind, order), losses in zip(orders.items(), found, strict=True):
                measured.setdefault(kind, []).append(order)
                qualities.setdefault(kind, []).append(order_quality(losses))
    results = tuple(
        OrderResult(
            kind,
            tuple(qualities[kind]),
            None if kind == RANDOM else paired_difference(qualities[kind], qualities[RANDOM]),
            orders_of_draws[0].forwards,
            float(np.mean([order.cpu_seconds for order in orders_of_draws])),
        )
        for kind, orders_of_draws in measured.items()
    )
    compared = tuple((first, second, paired_difference(qualities[first], qualities[second])) for first, second in COMPARISONS)
    decisions = len(network.decisions(precision))
    return CaseResult(name, precision, decisions, results, compared, judge.networks_run, time.process_time() - start)


def random_order(decisions: Sequence[Decision], seed: int) -> tuple[Decision, ...]:
    """Return the decisions shuffled."""
    return tuple(decisions[index] for index in np.random.default_rng(seed).permutation(len(decisions)))


def page(cases: Sequence[CaseResult], sizes: Mapping[str, int], where: Mapping[str, object], took: Mapping[str, float]) -> str:
    """Return the page of results."""
    rows = [
        [
            case.network,
            case.precision.value,
            order.name,
            f"{order.quality:.3f}",
            "" if order.against_random is None else interval(order.against_random),
            f"{order.forwards:,}",
            f"{order.cpu_seconds:.1f}",
        ]
        for case in cases
        for order in case.orders
    ]
    compared = [
        [case.network, case.precision.value, first, second, interval(difference), difference.word]
        for case in cases
        for first, second, difference in case.comparisons
    ]
    kinds = "; ".join(f"`{precision.value}` is {text}" for precision, text in KINDS.items())
    counts = "; ".join(f"{case.network} {case.precision.value} {case.decisions} ({case.networks_run:,})" for case in cases)
    return (
        "# Orders\n\n"
        f"Quality is the mean over all prefixes of log10 of the loss (KL divergence from the float network) on {sizes['held_out']} "
        "held-out test pictures; lower is better, 0.1 less is a loss 21% smaller. Mean over "
        f"{sizes['draws']} disjoint calibration draws of {sizes['samples']} pictures; the random order has another seed on each draw. "
        "Intervals are 95% (Student) on the differences paired by draw: they are about the choice of calibration pictures alone, and none "
        f"is corrected for the number of comparisons.\n\n{kinds}.\n\n"
        "A forward is one picture from the probed layer to the end, counted at the least: Hessian steps that took more than three tries "
        "are left out; at 4 bits the traces of activations, which a job measures too but the order does not read, are in it. CPU seconds "
        "are of one draw, one thread.\n\n"
        + markdown_table(["network", "precision", "order", "quality", "minus random", "forwards", "CPU s"], rows)
        + "\nOne order minus another:\n\n"
        + markdown_table(["network", "precision", "order", "minus", "difference", "the first is"], compared)
        + f"\nDecisions (and networks run to judge the prefixes): {counts}.\n\n"
        f"{environment_line(where)} Took {took['wall_seconds'] / 60:.1f} minutes, {took['cpu_seconds'] / 60:.1f} CPU minutes. "
        "Repeat with `python -m benchmarks.orders`.\n"
    )


def interval(difference: Difference) -> str:
    """Return a difference and its interval in words of one cell."""
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def _case_json(case: CaseResult) -> dict[str, object]:
    return {
        "network": case.network,
        "precision": case.precision.value,
        "decisions": case.decisions,
        "networks_run": case.networks_run,
        "cpu_seconds": case.cpu_seconds,
        "orders": [asdict(order) | {"quality": order.quality} for order in case.orders],
        "comparisons": [{"order": a, "minus": b, **asdict(difference), "word": difference.word} for a, b, difference in case.comparisons],
    }


if __name__ == "__main__":
    main()
