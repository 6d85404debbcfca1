"""Compares the orders of the search by held-out loss over all prefixes, and under budgets: ``python -m benchmarks.orders``.

Each of several disjoint calibration draws gives every guided order its own measurements. All are judged on the same held-out pictures,
which no order saw. Differences are paired by draw, so the intervals are about the choice of calibration pictures; they say nothing about
other networks or other held-out pictures. The random orders, one a seed, are judged on the first draw.
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
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx

from benchmarks.order_budgets import (
    BUDGETS,
    FLOAT,
    BudgetResult,
    Deepest,
    best_of_frontier,
    deepest_prefixes,
    measured_times,
    precisions,
    timed,
)
from benchmarks.order_judging import HeldOut, Judged, quantized_network
from benchmarks.order_measurements import BATCH, Draw, Kind, MeasuredOrder, Network, Pictures, measured_draw, measured_orders, read_network
from benchmarks.orders_page import COMPARISONS, FRONTIER, RANDOM, CaseResult, OrderResult, Predicted, page
from benchmarks.results_files import RESULTS, environment, write_results
from benchmarks.statistics import difference_of_means, order_quality, paired_difference
from calibration.number_formats.layer_precision import LayerPrecision
from engine_builder.search.loss_model import WITHIN, LossModel
from engine_builder.search.time_model import TimeModel
from engine_builder.timing import relative_latency
from examples.fashion_mnist.prepare import MODELS, PICTURES, network_input

PICTURE = (1, 28, 28)
HELD_OUT_SEED = 1
RANDOM_SEEDS = 5


def main() -> None:
    """Measure, write the results and print where they are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orders", description="Compare the orders of the search.")
    parser.add_argument("--draws", type=int, default=5, help="disjoint calibration draws, 2 to 8 (default %(default)s)")
    parser.add_argument("--samples", type=int, default=256, help="pictures in each, 64 to 256 (default %(default)s)")
    parser.add_argument("--held-out", type=int, default=1000, help="test pictures that judge (default %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results (default: benchmarks/results)")
    arguments = parser.parse_args()
    if not (2 <= arguments.draws <= 8 and 64 <= arguments.samples <= 256 and 2 <= arguments.held_out <= 10_000):
        parser.error("found sizes out of their bounds")
    where = environment()
    start = time.perf_counter()
    sizes = {"draws": arguments.draws, "samples": arguments.samples, "held_out": arguments.held_out}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        times = {name: times_of(name, sizes, scratch) for name in MODELS}
        # A process each, so that the CPU seconds of one do not hold another's.
        with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=multiprocessing.get_context("spawn")) as pool:
            waiting = [
                pool.submit(run_case, name, kind, sizes, times[name] if kind is Kind.INT8 else None, scratch)
                for kind in Kind
                for name in MODELS
            ]
            cases = []
            for future in waiting:
                cases.append(future.result())
                print(f"{cases[-1].network}, {cases[-1].kind}: {time.perf_counter() - start:.0f} s", flush=True)
        measured = {name: measured_ratios(name, cases, sizes, scratch) for name in MODELS}
    took = {"wall_seconds": time.perf_counter() - start, "cpu_seconds": sum(case.cpu_seconds for case in cases)}
    values = {
        "environment": where,
        "sizes": sizes,
        "took": took,
        "cases": [_case_json(case) for case in cases],
        "measured_ratios": {name: {engine: list(ratio) for engine, ratio in found.items()} for name, found in measured.items()},
    }
    day = datetime.datetime.now(tz=datetime.UTC).date()
    text = page(cases, measured, sizes, where, took)
    for written in write_results("orders", values, text, arguments.output, day=day):
        print(written)


def pictures(draws: int, samples: int, held_out: int) -> tuple[list[Pictures], Pictures]:
    """Return disjoint draws of training pictures, and test pictures that judge, as the networks take them."""
    with np.load(PICTURES, allow_pickle=False) as arrays:
        train, test = arrays["train_images"], arrays["test_images"]
    shuffled = np.random.default_rng(0).permutation(len(train))[: draws * samples].reshape(draws, samples)
    chosen = np.sort(np.random.default_rng(HELD_OUT_SEED).choice(len(test), held_out, replace=False))
    return [network_input(train[np.sort(indices)]) for indices in shuffled], network_input(test[chosen])


def times_of(name: str, sizes: Mapping[str, int], scratch: Path) -> TimeModel:
    """Return the time model of a network at int8, with the ranges of the first draw."""
    draws, _ = pictures(**sizes)
    network = read_network(name, MODELS[name], PICTURE)
    draw = measured_draw(network, Kind.INT8, "times", draws[0], scratch)
    return measured_times(network, network.layer_precisions(Kind.INT8.precision), draw, draws[0], scratch)


def run_case(name: str, kind: Kind, sizes: Mapping[str, int], times: TimeModel | None, scratch: Path) -> CaseResult:
    """Return what every order is worth on one network; the networks to time, of the first draw, are left in ``scratch``.

    Args:
        name: One of the example networks.
        kind: How quantized layers are quantized.
        sizes: ``draws``, ``samples`` and ``held_out``.
        times: Predicts latency, where that is known.
        scratch: A folder.
    """
    start = time.process_time()
    draws, held_out = pictures(**sizes)
    network = read_network(name, MODELS[name], PICTURE)
    judge = HeldOut(network, held_out)
    layer_precisions = network.layer_precisions(kind.precision)
    guided: dict[str, list[MeasuredOrder]] = {}
    qualities: dict[str, list[float]] = {}
    deepest_of: dict[str, list[list[Deepest]]] = {}
    predicted: list[Predicted] = []
    engines: dict[frozenset[LayerPrecision], str] = {}
    for number, calibration in enumerate(draws):
        draw = measured_draw(network, kind, str(number), calibration, scratch)
        measured = measured_orders(network, kind.precision, draw, calibration)
        orders = {order: [item.layer_precisions] for order, item in measured.orders.items()}
        if number == 0:
            orders[RANDOM] = [random_order(layer_precisions, seed) for seed in range(RANDOM_SEEDS)]
        for order, made in orders.items():
            for sequence in made:
                judged = judge.of_prefixes(sequence, draw)
                qualities.setdefault(order, []).append(order_quality([item.loss for item in judged]))
                deepest_of.setdefault(order, []).append(deepest_prefixes(sequence, judged, times))
                if order in ("loss", RANDOM):
                    predicted += predictions_of(measured.losses, sequence, judged)
        for order, item in measured.orders.items():
            guided.setdefault(order, []).append(item)
        if times is not None:
            deepest_of.setdefault(FRONTIER, []).append(best_of_frontier(measured.losses, times, judge, draw))
            if number == 0:
                engines = saved_engines(network, draw, [item for found in deepest_of.values() for item in found[0]], scratch)
    results = [_order_result(order, qualities[order], qualities[RANDOM], items) for order, items in guided.items()]
    results.insert(0, OrderResult(RANDOM, tuple(qualities[RANDOM]), None, 0, 0.0))
    compared = tuple((first, second, paired_difference(qualities[first], qualities[second])) for first, second in COMPARISONS)
    budgets = tuple(
        budget_result(order, place, [of_budgets[place] for of_budgets in found], engines)
        for place in range(len(BUDGETS))
        for order, found in deepest_of.items()
    )
    taken = time.process_time() - start
    return CaseResult(name, kind, len(layer_precisions), tuple(results), compared, budgets, tuple(predicted), judge.networks_run, taken)


def random_order(layer_precisions: Sequence[LayerPrecision], seed: int) -> tuple[LayerPrecision, ...]:
    """Return the layer precisions shuffled."""
    return tuple(layer_precisions[index] for index in np.random.default_rng(seed).permutation(len(layer_precisions)))


def predictions_of(losses: LossModel, order: Sequence[LayerPrecision], judged: Sequence[Judged]) -> list[Predicted]:
    """Return for every prefix of two or more what the loss model says, beside what was measured."""
    found = []
    for count in range(2, len(order) + 1):
        said, measured = losses.predict(precisions(order[:count])), judged[count - 1]
        bar = float(np.hypot(said.error, measured.error))
        found.append(Predicted(measured.loss, said.loss, bar, abs(measured.loss - said.loss) <= WITHIN * bar))
    return found


def budget_result(order: str, place: int, deepest_of: Sequence[Deepest], engines: Mapping[frozenset[LayerPrecision], str]) -> BudgetResult:
    """Return how far an order gets under the budget at a place of BUDGETS, over its draws or seeds.

    Args:
        order: Its name.
        place: In BUDGETS.
        deepest_of: Of each draw or seed.
        engines: Networks that will be timed, by their layer precisions.
    """
    predicted = tuple(item.predicted for item in deepest_of if item.predicted is not None)
    return BudgetResult(
        order, BUDGETS[place], tuple(len(item.quantized) for item in deepest_of), predicted, engines.get(frozenset(deepest_of[0].quantized))
    )


def saved_engines(network: Network, draw: Draw, deepest_of: Sequence[Deepest], scratch: Path) -> dict[frozenset[LayerPrecision], str]:
    """Write the float network and those that were reached, and return their names: each one's file is ``<network>-<name>.onnx``."""
    names = {frozenset[LayerPrecision](): FLOAT}
    for item in deepest_of:
        names.setdefault(frozenset(item.quantized), str(len(names)))
    for quantized, name in names.items():
        onnx.save_model(
            quantized_network(network, quantized, draw) if quantized else network.model, scratch / f"{network.name}-{name}.onnx"
        )
    return names


def measured_ratios(name: str, cases: Sequence[CaseResult], sizes: Mapping[str, int], scratch: Path) -> dict[str, tuple[float, float]]:
    """Return the latency of each saved network over the float network's, and its spread; all are timed in turns.

    Args:
        name: The network.
        cases: All results.
        sizes: ``draws``, ``samples`` and ``held_out``.
        scratch: Where ``run_case`` left the networks.
    """
    wanted = {item.engine for case in cases if case.network == name for item in case.budgets if item.engine is not None}
    _, held_out = pictures(**sizes)
    network = read_network(name, MODELS[name], PICTURE)
    feeds = {network.input: np.resize(held_out, (BATCH, *held_out.shape[1:]))}
    timings = timed({engine: scratch / f"{name}-{engine}.onnx" for engine in sorted(wanted | {FLOAT})}, feeds)
    found = {engine: relative_latency(timing, timings[FLOAT]) for engine, timing in timings.items()}
    return {engine: (relative.ratio, relative.mad) for engine, relative in found.items()}


def _order_result(name: str, qualities: Sequence[float], random: Sequence[float], draws: Sequence[MeasuredOrder]) -> OrderResult:
    seconds = float(np.mean([order.cpu_seconds for order in draws]))
    return OrderResult(name, tuple(qualities), difference_of_means(qualities, random), draws[0].forwards, seconds)


def _case_json(case: CaseResult) -> dict[str, object]:
    return {
        "network": case.network,
        "kind": case.kind,
        "decisions": case.layer_precisions,
        "networks_run": case.networks_run,
        "cpu_seconds": case.cpu_seconds,
        "orders": [asdict(order) | {"quality": order.quality} for order in case.orders],
        "comparisons": [{"order": a, "minus": b, **asdict(difference), "word": difference.word} for a, b, difference in case.comparisons],
        "budgets": [asdict(item) for item in case.budgets],
        "predictions": [asdict(item) for item in case.predictions],
    }


if __name__ == "__main__":
    main()
