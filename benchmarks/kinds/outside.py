"""Runs a whole job by the command line, and measures its engine in plain onnxruntime on samples that the job never saw."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import onnx

from benchmarks.kinds.case import Case, Outputs, Quality, Samples
from benchmarks.kinds.network_builder import Network
from benchmarks.process_tree import Usage, run_measured

MODEL, OUTPUT = "model.onnx", "output"  # in a job's folder: its file, and what it left
ROUNDS, RUNS = 15, 5  # of timing: each round runs both engines, so many times each


@dataclass(frozen=True, slots=True)
class Found:
    """What a job said and what is true of its engine on unseen samples."""

    name: str
    measure: str
    status: int
    wall_seconds: float
    message: str  # the last line on the terminal, where the job failed
    result: Mapping[str, object]  # result.json
    budget: float  # least share of the float model's quality
    float_quality: Quality | None
    quality: Quality | None
    speedup: float | None

    @property
    def is_true(self) -> str:
        """Whether what the job said holds: by the float model's answers, by the labels alone, or not."""
        if self.quality is None or self.float_quality is None:
            return "no engine"
        if self.quality.kept >= self.budget:
            return "yes"
        return "by labels" if self.quality.truth >= self.budget * self.float_quality.truth else "NO"


def run_case(case: Case, config: Mapping[str, object], budget: float, folder: Path) -> Found:
    """Run one job in a process of its own and measure its engine.

    Args:
        case: The network and its data.
        config: The job's configuration.
        budget: What share of the float model's quality it asks for.
        folder: Made, filled with the job's files and its output.
    """
    usage, message = run_job(case, config, folder)
    if usage.status:
        return Found(case.name, case.measure_name, usage.status, usage.wall_seconds, message, {}, budget, None, None, None)
    model, output = folder / MODEL, folder / OUTPUT
    result = cast("dict[str, object]", json.loads((output / "result.json").read_text(encoding="utf-8")))
    networks = [Network(path.read_bytes(), batch_axes=case.batch_axes) for path in (model, output / "engine.onnx")]
    answers = [run_unseen(case, network) for network in networks]
    qualities = [case.measure(answer, answers[0]) for answer in answers]
    speedup = measured_speedup(networks[0], networks[1], one_call(case))
    return Found(case.name, case.measure_name, 0, usage.wall_seconds, "", result, budget, qualities[0], qualities[1], speedup)


def run_job(case: Case, config: Mapping[str, object], folder: Path) -> tuple[Usage, str]:
    """Run one job in a process of its own; return what it took, and its last lines where it failed.

    Args:
        case: The network and its data.
        config: The job's configuration.
        folder: Made, filled with the job's files and its output.
    """
    folder.mkdir(parents=True)
    model, output, log = folder / MODEL, folder / OUTPUT, folder / "job.log"
    onnx.save(case.model, model)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    command = [sys.executable, "-m", "service", "optimize", str(model), "--output", str(output), "--config", str(folder / "config.json")]
    for name, samples in (("calibration", case.data.calibration), ("validation", case.data.validation)):
        if samples is not None:
            np.savez(folder / f"{name}.npz", allow_pickle=False, **dict(samples))
            command += [f"--{name}", str(folder / f"{name}.npz")]
    usage = run_measured(command, log)
    return usage, " ".join(log.read_text(encoding="utf-8").splitlines()[-3:]) if usage.status else ""


def run_unseen(case: Case, network: Network) -> Outputs:
    """Return a network's outputs for the unseen samples, the job's batch in each call: dynamic scales depend on it."""
    return network.run(case.data.unseen, batch=case.batch) if case.drive is None else case.drive(network.run)


def one_call(case: Case) -> Samples:
    """Return the first batch of the calibration samples."""
    return {name: array[: case.batch] for name, array in (case.call or case.data.calibration).items()}


def measured_speedup(first: Network, second: Network, feeds: Samples) -> float:
    """Return how many times faster the second is: the median ratio of CPU time over rounds in which both run; one thread each."""
    for network in (first, second):
        network.call(feeds)
    ratios = []
    for index in range(ROUNDS):
        seconds = {}
        for network in (first, second) if index % 2 else (second, first):
            network.call(feeds)
            start = time.thread_time()
            for _ in range(RUNS):
                network.call(feeds)
            seconds[network is first] = time.thread_time() - start
        ratios.append(seconds[True] / max(seconds[False], 1e-9))
    return float(np.median(ratios))
