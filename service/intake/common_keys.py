"""The keys of a configuration that most jobs set, given beside it: as flags on the command line, as arguments in Python."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import TypedDict

from calibration.accuracy.metrics import BudgetKey
from calibration.errors import InvalidConfigError
from engine_builder.config.config import Config, config_from_json
from engine_builder.config.schema import nearest
from service.intake.assignment_file import assignment_value


class CommonKeys(TypedDict, total=False):
    """Keys that may be given beside a configuration; each takes the place of the same key in it, a budget that of any other budget."""

    target: str
    gpu: str
    batch_size: int
    assignment: Mapping[str, str] | str | os.PathLike[str]  # precision by layer, or a file of them, such as a job's assignment.json
    min_relative: float
    max_drop: float
    min_score: float
    min_speedup: float
    max_latency_ms: float


def config_with(value: object, given: Mapping[str, object]) -> Config:
    """Return the configuration that a JSON value describes, with what is given beside it.

    Args:
        value: A parsed JSON object.
        given: Values of ``CommonKeys`` and ``metric``; None is not given.

    Raises:
        InvalidConfigError: The value or a key is wrong, or keys contradict each other or the objective of the value.
    """
    if not isinstance(value, Mapping):
        return config_from_json(value)
    parts = _parts(given)
    accuracy = parts.get("accuracy")
    if isinstance(accuracy, dict):
        stated = value.get("accuracy", {})
        if not isinstance(stated, Mapping):  # which is said as of a configuration without further keys
            return config_from_json(value)
        is_budget = any(key in accuracy for key in BudgetKey)
        kept = {key: item for key, item in stated.items() if not (is_budget and key in set(BudgetKey))}
        parts["accuracy"] = {**kept, **accuracy}
    return config_from_json({**value, **parts})


def check_arguments(given: Collection[str], others: Collection[str]) -> None:
    """Refuse arguments of a call that nobody would read, as one that is misspelt: a job would go on with another budget.

    Args:
        given: Names of arguments beside those that the call itself has.
        others: Names that the call itself has, for what was meant.

    Raises:
        InvalidConfigError: With the nearest known name.
    """
    for name in given:
        if name not in CommonKeys.__annotations__:
            near = nearest(name, (*CommonKeys.__annotations__, *others))
            fix = f"Did you mean `{near}`? " if near else ""
            raise InvalidConfigError(
                f"arguments: found the unknown name {name!r}",
                fix=f"{fix}Known are {', '.join(CommonKeys.__annotations__)}; all other keys of the configuration go into config={{...}}.",
            )


def is_any_given(given: Mapping[str, object]) -> bool:
    """Whether a key stands beside the configuration."""
    return bool(_parts(given))


def _parts(given: Mapping[str, object]) -> dict[str, object]:
    """Return what is given, in the form of a configuration."""

    def of(*keys: str) -> dict[str, object]:
        return {key: given[key] for key in keys if given.get(key) is not None}

    assignment = {} if given.get("assignment") is None else {"assignment": assignment_value(given["assignment"])}
    parts = {"objective": of("min_speedup", "max_latency_ms"), "accuracy": of("min_relative", "max_drop", "min_score", "metric")}
    return {**of("target", "gpu", "batch_size"), **assignment, **{key: part for key, part in parts.items() if part}}
