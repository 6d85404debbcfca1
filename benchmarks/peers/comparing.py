"""Builds the engines of all tools for one network, and measures them side by side on samples that none of them saw."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import onnx

from benchmarks.kinds.case import LABELS, Case, Quality, Samples
from benchmarks.kinds.network_builder import Network
from benchmarks.kinds.outside import MODEL, OUTPUT, run_job, run_unseen
from benchmarks.peers.quantizers import QUANTIZERS
from benchmarks.process_tree import Usage

FLOAT = "float"
ROUNDS = 5  # of each session
SESSIONS = 6  # one engine in two sessions differs by more than the rounds of one session do
LEAST_SECONDS = 0.02  # of each engine in each round

_SPREADS = 2.0  # a difference of latencies counts from here on, in standard errors of both


@dataclass(frozen=True, slots=True)
class Row:
    """One engine of one network."""

    tool: str
    seconds: float  # to make it: CPU seconds
    budget: float | None = None  # of a job of ours: least share of the float model's quality
    message: str = ""  # why there is no engine
    quality: Quality | None = None  # on unseen samples
    ratio: float | None = None  # of its latency to the float model's; CPU time of one thread
    ratio_error: float = 0.0  # standard error of the ratio, from the sessions

    @property
    def latency(self) -> float:
        """The ratio; that of the float model, which its user keeps, where there is no engine."""
        return 1.0 if self.ratio is None else self.ratio


@dataclass(frozen=True, slots=True)
class Comparison:
    """All engines of one network, the float model first."""

    network: str
    measure: str
    rows: tuple[Row, ...]
    has_labels: bool = False  # whether the jobs were given labels: without them nobody can know the quality against labels

    @property
    def truth(self) -> float:
        """The float model's own quality against labels."""
        quality = self.rows[0].quality
        return 0.0 if quality is None else quality.truth

    def keeps(self, row: Row, budget: float) -> bool:
        """Whether an engine keeps a budget on unseen samples: by the float model's answers, or by labels where the jobs had any."""
        if row.quality is None:
            return False
        return row.quality.kept >= budget or (self.has_labels and row.quality.truth >= budget * self.truth)

    def ahead_of(self, ours: Row) -> tuple[Row, ...]:
        """Return the peers' engines that keep our job's budget and are faster than its engine by more than the timing's error."""
        if ours.budget is None:
            return ()
        found = [row for row in self.rows[1:] if row.budget is None and row.ratio is not None and self.keeps(row, ours.budget)]
        return tuple(row for row in found if row.latency < ours.latency - _SPREADS * np.hypot(row.ratio_error, ours.ratio_error))


def job_name(budget: float) -> str:
    """Return what a job of ours is called."""
    return f"this project, {100 * budget:g}%"


def job_config(case: Case, budget: float) -> dict[str, object]:
    """Return the configuration of a job: the network's own keys, its batch and a budget."""
    accuracy = cast("Mapping[str, object]", case.config.get("accuracy", {}))
    return {"batch_size": case.batch, **case.config, "accuracy": {**accuracy, "min_relative": budget}}


def compared(case: Case, budgets: Sequence[float], folder: Path) -> Comparison:
    """Make every engine of a network, and measure all of them together.

    Args:
        case: The network, its data and its user's measure.
        budgets: A job of ours for each.
        folder: Made, and filled with the files of all.
    """
    folder.mkdir(parents=True)
    model = folder / MODEL
    onnx.save(case.model, model)
    made: dict[str, tuple[Path | None, Row]] = {FLOAT: (model, Row(FLOAT, 0.0))}
    calls = inputs_of(case, case.call or case.data.calibration)
    for place, (name, quantize) in enumerate(QUANTIZERS.items()):
        path, start = folder / f"peer{place}.onnx", time.process_time()
        try:
            quantize(model, path, calls, case.batch)
        except Exception as error:  # whatever a peer's tool raises is its answer
            made[name] = (None, Row(name, time.process_time() - start, message=f"{type(error).__name__}: {error}"))
        else:
            made[name] = (path, Row(name, time.process_time() - start))
    for place, budget in enumerate(budgets):
        usage, message = run_job(case, job_config(case, budget), folder / f"job{place}")
        path = folder / f"job{place}" / OUTPUT / "engine.onnx"
        made[job_name(budget)] = (path if not usage.status else None, _job_row(budget, usage, message))
    return Comparison(
        case.name, case.measure_name, measured(case, made), has_labels=LABELS in (case.data.validation or case.data.calibration)
    )


def measured(case: Case, made: Mapping[str, tuple[Path | None, Row]]) -> tuple[Row, ...]:
    """Return the rows with quality and latency; an engine that plain onnxruntime does not load gets a message."""
    networks: dict[str, tuple[Network, ...]] = {}
    refused: dict[str, str] = {}
    for name, (path, row) in made.items():
        if path is None:
            refused[name] = row.message
            continue
        try:
            networks[name] = tuple(Network(path.read_bytes(), batch_axes=case.batch_axes) for _ in range(SESSIONS))
        except Exception as error:  # the errors of onnxruntime have no class of their own
            refused[name] = f"{type(error).__name__}: {error}"
    answers = {name: run_unseen(case, sessions[0]) for name, sessions in networks.items()}
    timings = ratios(networks, inputs_of(case, _first_call(case)))
    rows = []
    for name, (_, row) in made.items():
        if name in refused:
            rows.append(Row(row.tool, row.seconds, row.budget, " ".join(refused[name].split())[:200]))
        else:
            quality = case.measure(answers[name], answers[FLOAT])
            rows.append(Row(row.tool, row.seconds, row.budget, "", quality, *timings[name]))
    return tuple(rows)


def ratios(networks: Mapping[str, Sequence[Network]], feeds: Samples) -> dict[str, tuple[float, float]]:
    """Return each engine's latency as a ratio to the float model's, and its standard error; in each round all take turns.

    Args:
        networks: Several sessions of each engine, as many of each.
        feeds: The call that is timed.
    """
    runs = {name: max(_runs(network, feeds) for network in sessions) for name, sessions in networks.items()}
    found = {name: list[float]() for name in networks}
    for together in zip(*networks.values(), strict=True):
        timed = _rounds(dict(zip(networks, together, strict=True)), feeds, runs)
        for name, each in timed.items():
            found[name].append(float(np.median(each)))
    return {name: (float(np.mean(each)), _error(each)) for name, each in found.items()}


def _rounds(networks: Mapping[str, Network], feeds: Samples, runs: Mapping[str, int]) -> dict[str, list[float]]:
    order, found = list(networks), {name: list[float]() for name in networks}
    for index in range(ROUNDS):
        seconds = {name: _timed(networks[name], feeds, runs[name]) for name in order[index % len(order) :] + order[: index % len(order)]}
        for name, one in seconds.items():
            found[name].append(one / max(seconds[FLOAT], 1e-9))
    return found


def inputs_of(case: Case, samples: Samples) -> Samples:
    """Return the arrays that the network reads; labels are left out."""
    names = {value.name for value in case.model.graph.input}
    return {name: array for name, array in samples.items() if name in names}


def _first_call(case: Case) -> Samples:
    return case.call or {name: array[: case.batch] for name, array in case.data.calibration.items()}


def _job_row(budget: float, usage: Usage, message: str) -> Row:
    return Row(job_name(budget), usage.cpu_seconds, budget, message)


def _runs(network: Network, feeds: Samples) -> int:
    return max(int(np.ceil(LEAST_SECONDS / max(_timed(network, feeds, 1), 1e-6))), 1)


def _timed(network: Network, feeds: Samples, runs: int) -> float:
    """Return the CPU seconds of one run; the first run of a turn is not counted."""
    network.call(feeds)
    start = time.thread_time()
    for _ in range(runs):
        network.call(feeds)
    return (time.thread_time() - start) / runs


def _error(values: Sequence[float]) -> float:
    """Return the standard error of a mean of sessions; one alone tells nothing of it."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
