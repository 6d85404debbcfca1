"""Stages that several processes can work on at once, on whole calls of the model or on layers: how they are split and put together.

Whoever runs stages handles their JSON. The parts are measured by the stage itself, in any order and anywhere; the stage that is then asked
to put them together gives what it gives when it measures all, to the last bit.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from calibration.codec import as_object, json_from_value, value_from_json
from calibration.execution.provider import Provider
from engine_builder.pipeline.stage import Stage
from engine_builder.pipeline.stage_table import HESSIAN, INTERACTIONS, SENSITIVITY
from engine_builder.stage_io.measuring import (
    HessianRequest,
    HessianResult,
    InteractionsRequest,
    InteractionsResult,
    SensitivityRequest,
    SensitivityResult,
)

Q = TypeVar("Q")
R = TypeVar("R")
Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Split:
    """How a stage is split, in JSON.

    Attributes:
        parts: From a request and the most parts, the requests of its parts, in order; the request alone where it is a single call.
        joined: From a request and what its parts gave (``result`` of each answer), in order, the request that puts them together.
    """

    parts: Callable[[Json, int], tuple[Json, ...]]
    joined: Callable[[Json, Sequence[object]], Json]


@dataclass(frozen=True, slots=True)
class MeasuredPart:
    """A part that somebody measured.

    Attributes:
        result: What it gave, in JSON.
        worker: Who measured it.
        kind: What that one is, such as ``cpu worker``.
    """

    result: object
    worker: str
    kind: str


# Runs the parts of a stage: job, step, stage, request, how it is split; what runs one here; told the progress; ends it. None: not split.
RunParts = Callable[
    [str, str, str, Json, Split, Callable[[Json, Callable[[float], None]], Json], Callable[[float], None], Callable[[], None]],
    tuple[MeasuredPart, ...] | None,
]


def on_provider(part: Json, provider: Provider) -> Json:
    """Return the request of a part, of any stage, to be measured with a provider of ONNX Runtime or not at all."""
    return {**part, "provider": provider.value}


def in_words(parts: Sequence[MeasuredPart]) -> str:
    """Return how many parts ran where, such as ``6 parts: 4 on 2 cpu workers (CPUExecutionProvider), ...``; names nobody."""
    counts, workers = Counter[tuple[str, str]](), defaultdict[tuple[str, str], set[str]](set)
    for part in parts:
        for provider in as_object(as_object(part.result)["providers"]):
            counts[part.kind, provider] += 1
            workers[part.kind, provider].add(part.worker)
    found = [f"{count} on {_counted(len(workers[where]), where[0])} ({where[1]})" for where, count in sorted(counts.items())]
    return ": ".join(filter(None, (_counted(len(parts), "part"), ", ".join(found))))


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def even_parts(start: int, stop: int, batch: int, most: int) -> tuple[tuple[int, int], ...]:
    """Return samples [start, stop) in at most so many parts, [start, stop) each, of about equally many whole calls."""
    calls = -(-(stop - start) // batch)
    count = max(min(most, calls), 1)
    edges = [min(start + calls * index // count * batch, stop) for index in range(count + 1)]
    return tuple(itertools.pairwise(edges))


def _sensitivity_parts(request: SensitivityRequest, most: int) -> tuple[SensitivityRequest, ...]:
    found = even_parts(request.start, request.stop, request.batch, most)
    return tuple(replace(request, start=start, stop=stop, is_part=True) for start, stop in found)


def _sensitivity_joined(request: SensitivityRequest, parts: tuple[SensitivityResult, ...]) -> SensitivityRequest:
    return replace(request, parts=parts)


def _hessian_parts(request: HessianRequest, most: int) -> tuple[HessianRequest, ...]:
    return tuple(replace(request, layers=part) for part in even_parts(0, len(request.of.eligible), 1, most))


def _hessian_joined(request: HessianRequest, parts: tuple[HessianResult, ...]) -> HessianRequest:
    return replace(request, parts=parts)


def _interactions_parts(request: InteractionsRequest, most: int) -> tuple[InteractionsRequest, ...]:
    if request.samples is None:
        return (request,)
    return tuple(replace(request, samples=part, is_part=True) for part in even_parts(*request.samples, request.batch, most))


def _interactions_joined(request: InteractionsRequest, parts: tuple[InteractionsResult, ...]) -> InteractionsRequest:
    return replace(request, parts=parts)


@dataclass(frozen=True, slots=True)
class _Typed(Generic[Q, R]):
    """The same with the types of a stage."""

    stage: Stage[Q, R]
    parts: Callable[[Q, int], tuple[Q, ...]]
    joined: Callable[[Q, tuple[R, ...]], Q]

    def in_json(self) -> Split:
        def parts(request: Json, most: int) -> tuple[Json, ...]:
            found = self.parts(value_from_json(self.stage.request, request), most)
            return tuple(as_object(json_from_value(one)) for one in found) if len(found) > 1 else (request,)

        def joined(request: Json, results: Sequence[object]) -> Json:
            values = tuple(value_from_json(self.stage.result, one) for one in results)
            return as_object(json_from_value(self.joined(value_from_json(self.stage.request, request), values)))

        return Split(parts, joined)


SPLITS: Mapping[str, Split] = {
    SENSITIVITY.name: _Typed(SENSITIVITY, _sensitivity_parts, _sensitivity_joined).in_json(),
    HESSIAN.name: _Typed(HESSIAN, _hessian_parts, _hessian_joined).in_json(),
    INTERACTIONS.name: _Typed(INTERACTIONS, _interactions_parts, _interactions_joined).in_json(),
}
