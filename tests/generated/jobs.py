"""Whole jobs on generated models: a target builds an engine, or refuses the model by a message for its user; nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import onnx

from calibration.accuracy.measures.values import nmse
from calibration.errors import InputError
from tests.driver import QUANTIZED_IS_FASTER, run_job
from tests.generated.graphs import Array
from tests.generated.laws import session
from tests.generated.models import Generated

CPU: Mapping[str, object] = {}
ADA: Mapping[str, object] = {"target": "tensorrt-rtx", "gpu": "RTX 4090"}
BUDGET = 0.05  # of the outputs' mean square
_SAMPLES, _VALIDATION = 16, 16


def job_fault(made: Generated, target: Mapping[str, object], folder: Path) -> tuple[str, str | None]:
    """Run a whole job and return how it ended ("improved", "baseline_kept", "refused: ...") and what is wrong with that.

    Args:
        made: A sound model.
        target: ``CPU`` or ``ADA``.
        folder: The job's workspace.
    """
    config = {**target, "accuracy": {"max_nmse": BUDGET}, "search": {"max_trials": 2, "orders": ["loss"]}}
    validation = made.samples(_VALIDATION, seed=2)
    try:
        finished = run_job(folder, made.model, made.samples(_SAMPLES, seed=1), validation, config, timer=QUANTIZED_IS_FASTER)
    except InputError as error:
        return f"refused: {error.detail}", None
    outcome = str(finished.result["outcome"])
    failures = [str(trial["failure"]) for trial in finished.driver.trials if trial["failure"] is not None]
    if failures:
        return outcome, f"trial: {failures[0]}"
    if finished.engine.suffix == ".onnx":
        return outcome, _wrong_engine(made, finished.engine, validation, finished.result)
    return outcome, None


def _wrong_engine(made: Generated, engine: Path, validation: Mapping[str, Array], result: Mapping[str, object]) -> str | None:
    """Return what a user would find wrong with an engine in plain onnxruntime."""
    answer = str(cast(Mapping[str, object], result["verdict"])["answer"])
    runs = [session(model, optimized=True) for model in (made.model, onnx.load_model(engine))]
    count = made.batch or _VALIDATION
    batches = [{name: array[start : start + count] for name, array in validation.items()} for start in range(0, _VALIDATION, count)]
    expected, found = (_by_sample(made, [one.run(None, batch) for batch in batches]) for one in runs)
    for spec, a, b in zip(made.outputs, expected, found, strict=True):
        if a.dtype != b.dtype or a.shape != b.shape:
            return f"engine: output {spec.name} is {b.dtype}{b.shape}, {a.dtype}{a.shape} expected"
    errors = [float(nmse(a, b).mean()) for spec, a, b in zip(made.outputs, expected, found, strict=True) if spec.is_float]
    if answer.startswith("met") and result["outcome"] == "improved" and not float(np.mean(errors)) <= 1.01 * BUDGET:  # other rounding
        return f"engine: relative errors of {errors} on the validation samples, a mean of at most {BUDGET} was found"
    return None


def _by_sample(made: Generated, calls: Sequence[Sequence[Array]]) -> list[Array]:
    """Return each output of several calls, (samples, ...)."""
    outputs = zip(made.outputs, zip(*calls, strict=True), strict=True)
    return [np.concatenate([np.moveaxis(part, spec.sample_axis, 0) for part in parts]) for spec, parts in outputs]
