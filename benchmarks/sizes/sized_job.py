"""Runs one whole job by the command line, as a user does, and notes what it took."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from benchmarks.process_tree import Usage, run_measured
from benchmarks.sizes.cases import Case
from benchmarks.sizes.centring import centre_logits
from benchmarks.sizes.tree_use import StageUse, TreeUse

ALLOWED_BYTES, ALLOWED_MODELS = 300_000_000, 3  # the bar: so much, and so many times the model
_LAST_LINES = 4


@dataclass(frozen=True, slots=True)
class SizedJob:
    """What a job found and took."""

    name: str
    model_bytes: int  # with external data
    config: Mapping[str, object]
    usage: Usage
    peak_pss_bytes: int
    stages: Mapping[str, StageUse]
    result: Mapping[str, object]  # result.json; empty where the job failed
    trials: int
    output_bytes: int  # of all files that the job leaves
    message: str  # the last lines on the terminal, where it failed

    @property
    def share_of_allowed(self) -> float:
        """Peak memory in units of the bar."""
        return self.peak_pss_bytes / (ALLOWED_BYTES + ALLOWED_MODELS * self.model_bytes)


def run_sized_job(
    name: str, case: Case, config: Mapping[str, object], folder: Path, *, calibration: int, validation: int, seed: int = 0
) -> SizedJob:
    """Write a network and its samples, run its job, and return what it took.

    Args:
        name: Of the network.
        case: The network.
        config: Of the job.
        folder: Made, and filled with the job's files.
        calibration: Samples to calibrate with.
        validation: Samples to judge by.
        seed: Of the samples.
    """
    folder.mkdir(parents=True)
    model, output, log = folder / "model.onnx", folder / "output", folder / "job.log"
    case.write(model)
    rng = np.random.default_rng(seed)
    if case.is_centred:
        centre_logits(model, case.samples(rng, calibration))
    model_bytes = _size_bytes(folder)
    for file, count in (("calibration", calibration), ("validation", validation)):
        np.savez(folder / f"{file}.npz", allow_pickle=False, **case.samples(rng, count))
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    command = [sys.executable, "-m", "service", "optimize", str(model), "--output", str(output), "--config", str(folder / "config.json")]
    command += ["--calibration", str(folder / "calibration.npz"), "--validation", str(folder / "validation.npz"), "--no-cache"]
    seen = TreeUse()
    usage = run_measured(command, log, on_sample=seen.see)
    result: Mapping[str, object] = {}
    trials, message = 0, ""
    if usage.status:
        message = " ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:])
    else:
        result = cast("dict[str, object]", json.loads((output / "result.json").read_text(encoding="utf-8")))
        trials = len(json.loads((output / "report.json").read_text(encoding="utf-8"))["trials"])
    return SizedJob(
        name,
        model_bytes,
        config,
        usage,
        seen.peak_pss_bytes,
        seen.by_stage(),
        result,
        trials,
        _size_bytes(output) if output.exists() else 0,
        message,
    )


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
