"""Trials of which a part can be done before the search asks for them: what that part reads, and how the trial takes it.

Whoever runs stages handles their JSON. The same content gives the same part, whatever proposed the assignment and whatever its latency
will be compared with: that is left to the trial.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from calibration.codec import as_object, json_from_value, value_from_json
from engine_builder.pipeline.stage_table import PREPARE, TRIAL
from engine_builder.records.trial import FOLDED
from engine_builder.stage_io.engines import Prepared, PrepareRequest

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class EarlyPart:
    """What can be done of a stage before, in JSON."""

    stage: str  # that does it
    request: Json
    folder: str  # in the workspace, of what it makes

    @property
    def key(self) -> str:
        """The digest of what is asked for, in which files are named by their content."""
        return PurePosixPath(self.folder).name


@dataclass(frozen=True, slots=True)
class Preparation:
    """How a part of a stage is done before, in JSON.

    Attributes:
        part: From the request of the whole, what can be done before; None where that is nothing.
        joined: From the request of the whole and what the part gave (``result`` of its answer), the request that takes it.
        without: From such a request, that of the whole again, which takes nothing.
    """

    part: Callable[[Json], EarlyPart | None]
    joined: Callable[[Json, object], Json]
    without: Callable[[Json], Json]


def _part_of_trial(request: Json) -> EarlyPart | None:
    asked = value_from_json(TRIAL.request, request)
    if not asked.precisions or asked.proposed_by == FOLDED:
        return None
    part = PrepareRequest(asked.job, asked.precisions)
    return EarlyPart(PREPARE.name, as_object(json_from_value(part)), part.place)


def _joined_trial(request: Json, result: object) -> Json:
    asked = value_from_json(TRIAL.request, request)
    return as_object(json_from_value(replace(asked, prepared=value_from_json(Prepared, result))))


def _whole_trial(request: Json) -> Json:
    return as_object(json_from_value(replace(value_from_json(TRIAL.request, request), prepared=None)))


PREPARATIONS: Mapping[str, Preparation] = {TRIAL.name: Preparation(_part_of_trial, _joined_trial, _whole_trial)}
