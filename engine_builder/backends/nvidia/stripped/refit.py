"""Puts the weights back into a plan that was built without them. Not yet run on a GPU.

A stripped plan holds kernels and next to no weights. TensorRT opens and runs it all the same and answers with zeros, without a word, so no
such plan may be opened without its weights: which model has them stands in a file beside the plan, ``PLAN.stripped.json``.

Plans are built for the very weights that come back (``BuilderFlag.REFIT_IDENTICAL``). TensorRT may then fold constants and choose kernels
as for a whole plan; other weights give results that nobody defines. ``BuilderFlag.REFIT`` takes any weights and keeps TensorRT from both;
in version 11.3 it loses biases of products (its release notes).
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

from calibration.codec import as_object, value_from_json
from engine_builder.backends.atomic_file import write_atomically
from engine_builder.backends.nvidia.hooks import Messages
from engine_builder.errors import BuildError

STRIPPED_SUFFIX = ".stripped.json"
_WEIGHTS = "weights"
_FIX = "use the plan with its weights (leave builder.strip_weights out), and report it with the job's log.txt"


def note_weights(plan: Path, model: Path) -> Path:
    """Write beside a plan that its weights are those of a model in the same folder; returns the file that says so.

    Args:
        plan: Without weights.
        model: It was built from.
    """
    beside = _beside(plan)
    write_atomically(beside, json.dumps({_WEIGHTS: model.name}).encode())
    return beside


def weights_of(plan: Path) -> Path | None:
    """Return the model that has a plan's weights; None for a plan that has them itself.

    Raises:
        BuildError: The file beside the plan cannot be read, or the model is not there.
    """
    beside = _beside(plan)
    if not beside.exists():
        return None
    try:
        model = plan.with_name(value_from_json(str, as_object(json.loads(beside.read_text(encoding="utf-8")))[_WEIGHTS]))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise BuildError(f"{plan.name}: where its weights are cannot be read from {beside.name}: {exc}", fix="build it again") from exc
    if not model.is_file():
        raise BuildError(f"{plan.name}: its weights, {model.name}, are not beside it", fix="put them there, or build it again")
    return model


def refit(trt: ModuleType, engine: Any, weights: Path, log: Any, messages: Messages, name: str) -> None:
    """Put the weights of a model into an engine that has no context yet.

    Args:
        trt: The module.
        engine: Of a plan without weights.
        weights: The model that the plan was built from; its external data lie beside it.
        log: The process's logger.
        messages: What it was told.
        name: Of the plan.

    Raises:
        BuildError: TensorRT takes not all of them.
    """
    refitter = trt.Refitter(engine, log)
    reader = trt.OnnxParserRefitter(refitter, log)  # owns the weights that the refitter points to
    if not reader.refit_from_file(str(weights)):
        said = "; ".join(str(reader.get_error(index).desc()) for index in range(reader.num_errors)) or messages.complaints()
        raise BuildError(f"{name}: the weights of {weights.name} do not fit into it: {said or 'no reason given'}", fix=_FIX)
    if not refitter.refit_cuda_engine():
        missing = list(refitter.get_missing_weights())
        said = f"{len(missing)} are missing, {', '.join(map(repr, missing[:3]))} among them" if missing else messages.complaints()
        raise BuildError(f"{name}: its weights could not be put back: {said or 'no reason given'}", fix=_FIX)


def _beside(plan: Path) -> Path:
    return plan.with_name(plan.name + STRIPPED_SUFFIX)
