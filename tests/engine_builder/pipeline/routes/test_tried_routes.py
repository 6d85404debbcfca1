"""Build routes of the leading engine: which are tried, what is kept of them, and when they end."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from calibration.codec import json_from_value, value_from_json
from engine_builder.backends.onnxruntime.cpu import OrtCpuBackend
from engine_builder.config.config import config_from_json
from engine_builder.errors import BuildError, StageCrashedError
from engine_builder.pipeline.routes.route_budget import LEAST_SECONDS
from engine_builder.pipeline.routes.tried_routes import ALL_TRIED, Routed, leading, with_routes
from engine_builder.records.build_route import Knob
from engine_builder.records.calibrated import Calibrated
from engine_builder.records.trial import Trial
from engine_builder.stage_io.engines import EngineJob, RouteRequest, RouteResult
from engine_builder.timing import RelativeLatency
from tests.engine_builder.fake_job import BASELINE, HALFWAY, INSPECTION, TABLE_FILE, Watcher

KNOBS = (Knob("-a", "0", ("0", "1")), Knob("-b", "0", ("0", "1")), Knob("-c", "0", ("0", "1")))
TARGET = dataclasses.replace(OrtCpuBackend().capabilities, has_build_routes=True)
ROUTE_SECONDS = 2.0


def trials() -> list[Trial]:
    """Return the baseline and two engines inside the budget, the second one the faster."""
    quantized = [{}, HALFWAY.quantized(HALFWAY.layers[:2]), HALFWAY.quantized(HALFWAY.layers[:6])]
    found = [HALFWAY.trial(index, layers, "loss") for index, layers in enumerate(quantized)]
    return [found[0], *(dataclasses.replace(trial, engine=BASELINE) for trial in found[1:])]


@dataclasses.dataclass
class Compiler:
    """A driver of the stage ``route``: what each knob that is set multiplies the latency by, and which routes do harm."""

    times: Mapping[str, float]
    joint: Mapping[str, float] = dataclasses.field(default_factory=dict)  # ratio of whole routes that do not follow from their knobs
    outside: Sequence[str] = ()  # routes whose engines miss the budget
    broken: Mapping[str, Exception] = dataclasses.field(default_factory=dict)
    error: float = 0.001
    seconds: float = 10.0  # of the job so far
    asked: list[RouteRequest] = dataclasses.field(default_factory=list)
    names: list[str] = dataclasses.field(default_factory=list)
    spans: list[tuple[float, float]] = dataclasses.field(default_factory=list)

    def __call__(self, name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> Mapping[str, Any]:
        asked = value_from_json(RouteRequest, json.loads(json.dumps(request)))
        assert stage == "route"
        self.asked.append(asked)
        self.names.append(name)
        self.spans.append(span)
        self.seconds += ROUTE_SECONDS
        if asked.route in self.broken:
            raise self.broken[asked.route]
        ratio = self.joint.get(asked.route, 1.0)
        for token in asked.route.split() if asked.route not in self.joint else ():
            ratio *= self.times[token.partition("=")[0]]
        found, latency = asked.origin.on_all, asked.origin.latency
        assert found is not None
        assert latency is not None
        trial = dataclasses.replace(
            asked.origin,
            index=asked.index,
            fingerprint=name.removeprefix("route/"),
            order="route",
            on_all=dataclasses.replace(found, excess=-1.0, probability_over=1.0) if asked.route in self.outside else found,
            latency=dataclasses.replace(latency, ratio=latency.ratio * ratio),
            seconds=ROUTE_SECONDS,
            build_route=asked.route,
        )
        return {"result": json_from_value(RouteResult(trial, RelativeLatency(ratio, 0.0, self.error))), "seconds": ROUTE_SECONDS}

    @property
    def routes(self) -> list[str]:
        return [request.route for request in self.asked]


def tried(compiler: Compiler, *, knobs: Sequence[Knob] = KNOBS, ratio: float | None = None, **config: object) -> Routed:
    settings = config_from_json({"target": "tensorrt", "builder": {"build_routes": "mixed"}, **config})
    job = EngineJob(settings, INSPECTION, BASELINE, Calibrated(TABLE_FILE, TABLE_FILE, TABLE_FILE, {}, ()), knobs=tuple(knobs))
    return with_routes(trials(), lambda trial: trial.on_all, ratio, job, TARGET, compiler, lambda: compiler.seconds, Watcher())


def test_the_fastest_finalist_is_built_by_each_knob_and_by_the_product_of_what_helped() -> None:
    compiler = Compiler({"-a": 0.9, "-b": 1.1, "-c": 0.8})
    routed = tried(compiler)
    assert compiler.routes == ["-a=1", "-b=1", "-c=1", "-c=1 -a=1"]
    assert {request.origin.fingerprint for request in compiler.asked} == {trials()[2].fingerprint}
    assert [(trial.build_route, trial.index) for trial in routed.helped] == [("-a=1", 3), ("-c=1", 4), ("-c=1 -a=1", 5)]
    assert routed.scored == 4
    assert routed.found is not None
    assert (routed.found.knobs, routed.found.ended) == (3, ALL_TRIED)
    assert len(set(compiler.names)) == 4
    assert [span[0] for span in compiler.spans[1:]] == [span[1] for span in compiler.spans[:-1]]  # progress goes on


def test_fast_leaves_out_the_product() -> None:
    compiler = Compiler({"-a": 0.9, "-b": 1.1, "-c": 0.8})
    tried(compiler, builder={"build_routes": "fast"})
    assert compiler.routes == ["-a=1", "-b=1", "-c=1"]


def test_combinations_go_on_only_while_they_are_predicted_to_beat_what_was_measured() -> None:
    times = {"-a": 0.9, "-b": 0.95, "-c": 0.8}
    compiler = Compiler(times)
    tried(compiler)
    assert compiler.routes[3:] == ["-c=1 -a=1 -b=1"]  # as predicted, so that no other one can be faster
    stubborn = Compiler(times, joint={"-c=1 -a=1 -b=1": 1.0})
    tried(stubborn)
    assert stubborn.routes[3:] == ["-c=1 -a=1 -b=1", "-c=1 -a=1"]


@pytest.mark.parametrize(
    ("compiler", "why_not"),
    [
        (Compiler({"-a": 0.5}, outside=("-a=1",)), "its engine is outside the budget"),
        (Compiler({"-a": 0.97}, error=0.02), "its engine is not faster beyond the error of the timing"),
        (Compiler({"-a": 1.0}), "its engine is not faster"),
        (Compiler({}, broken={"-a=1": StageCrashedError("ended by SIGSEGV", fix="none")}), "ended by SIGSEGV"),
    ],
)
def test_a_route_that_does_not_help_is_left_out_and_says_why(compiler: Compiler, why_not: str) -> None:
    routed = tried(compiler, knobs=KNOBS[:1])
    assert routed.helped == ()
    assert routed.found is not None
    assert [one.why_not for one in routed.found.tried] == [why_not]


def test_a_route_that_did_not_end_is_told_by_its_seconds() -> None:
    error = StageCrashedError("ended by SIGALRM", fix="none")
    error.seconds = LEAST_SECONDS + 1
    routed = tried(Compiler({}, broken={"-a=1": error}), knobs=KNOBS[:1])
    assert routed.found is not None
    assert routed.found.tried[0].why_not == f"it did not end within {LEAST_SECONDS:g} seconds"


def test_three_failures_in_a_row_end_it() -> None:
    knobs = [Knob(f"-k{index}", "0", ("0", "1")) for index in range(6)]
    compiler = Compiler({}, broken={f"-k{index}=1": BuildError("no", fix="none") for index in range(6)})
    routed = tried(compiler, knobs=knobs)
    assert len(compiler.routes) == 3
    assert routed.found is not None
    assert routed.found.ended == "3 routes in a row failed"


def test_builds_are_those_that_the_search_left() -> None:
    compiler = Compiler(dict.fromkeys(("-a", "-b", "-c"), 0.9))
    routed = tried(compiler, search={"max_trials": 5})
    assert len(compiler.routes) == 2  # three trials were made
    assert routed.found is not None
    assert routed.found.ended == "max_trials leaves no more than 2 builds for them"


def test_time_is_that_of_the_search_and_a_route_gets_no_more_than_is_left() -> None:
    compiler = Compiler(dict.fromkeys(("-a", "-b", "-c"), 0.9))
    routed = tried(compiler, search={"max_seconds": 15})
    assert [request.most_seconds for request in compiler.asked] == [5.0, 3.0]  # 10 seconds were spent, a route takes 2
    assert routed.found is not None
    assert routed.found.ended == "of the time for them 1 seconds are left, and one takes about 2"


def test_by_default_they_take_no_longer_than_the_job_until_then() -> None:
    compiler = Compiler(dict.fromkeys(("-a", "-b", "-c"), 0.9), seconds=5.0)
    tried(compiler, builder={})
    assert len(compiler.routes) == 2
    asked = Compiler(dict.fromkeys(("-a", "-b", "-c"), 0.9), seconds=5.0)
    tried(asked)  # who names a kind gets all of it
    assert len(asked.routes) == 4


@pytest.mark.parametrize(
    ("knobs", "config", "said"),
    [(KNOBS, {"builder": {"build_routes": "off"}}, False), ((), {"builder": {"build_routes": "off"}}, False), ((), {"builder": {}}, True)],
)
def test_off_tries_none_and_a_builder_without_knobs_is_told(knobs: Sequence[Knob], config: Mapping[str, Any], *, said: bool) -> None:
    compiler = Compiler({})
    routed = tried(compiler, knobs=knobs, **config)
    assert compiler.asked == []
    assert routed.found is None
    assert bool(routed.notes) is said


def test_an_assignment_that_is_built_as_it_is_gets_no_route() -> None:
    compiler = Compiler({})
    assert tried(compiler, assignment={"*": "int8"}, assignment_only=True) == Routed()
    assert compiler.asked == []


def test_where_an_engine_must_be_fast_enough_routes_are_for_the_fastest_and_only_if_none_is() -> None:
    found = trials()
    fastest = found[2].latency
    assert fastest is not None
    assert leading(found, lambda trial: trial.on_all, fastest.ratio) is None
    too_slow = leading(found, lambda trial: trial.on_all, fastest.ratio - 0.1)
    assert too_slow is not None
    assert too_slow.fingerprint == found[2].fingerprint
    assert leading(found, lambda trial: trial.on_all, 1.0) is None  # the baseline is fast enough


def test_without_a_finalist_there_is_nothing_to_build_again() -> None:
    assert leading(trials()[:1], lambda trial: trial.on_all, None) is None
