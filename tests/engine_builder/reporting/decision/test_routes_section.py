from __future__ import annotations

from dataclasses import replace

import pytest

from engine_builder.records.build_route import TriedRoute, TriedRoutes
from engine_builder.reporting.body.job_result import result_json, route_in_words, shipped_route
from engine_builder.reporting.body.report_body import body_from_json, body_json
from engine_builder.reporting.page import render
from engine_builder.timing import RelativeLatency
from tests.engine_builder.reporting.decision.test_section import BODY
from tests.engine_builder.reporting.page_reader import Page

ROUTES = TriedRoutes(
    origin="f2",
    knobs=4,
    tried=(
        TriedRoute("-a=1", "f1", RelativeLatency(0.8, 0.01, 0.004), 0.9, helped=True, why_not=None, seconds=3.0),
        TriedRoute("-b=<2>", "f7", None, None, helped=False, why_not="it crashed", seconds=1.0),
    ),
    ended="three & a half",
)
ROUTED = replace(BODY, routes=ROUTES, result=replace(BODY.result, build_route=shipped_route("f1", ROUTES)))


def test_the_section_tells_each_route_and_which_is_kept() -> None:
    page = Page(render(ROUTED))
    first, second = page.sections["Build routes: Routes"].rows
    assert first == {
        "route": "-a=1",
        "times as fast as without it": "1.250 ± 0.006",
        "score": "0.9",
        "seconds": "3.0",
        "what came of it": "it is kept",
    }
    assert (second["route"], second["what came of it"]) == ("-b=<2>", "it crashed")
    said = page.sections["Build routes"].text
    assert "1 of 2 routes of trial 2 helped; the builder has 4 knobs. Why no more: three & a half." in said
    assert "trtexec --setBuildRoute=-a=1" in said


def test_a_job_without_routes_has_no_section_and_no_keys() -> None:
    assert "Build routes" not in Page(render(BODY)).headings
    assert "build_route" not in result_json(BODY.result)
    assert "routes" not in body_json(BODY)


def test_the_route_is_in_the_result_and_survives_json() -> None:
    assert result_json(ROUTED.result)["build_route"] == {
        "route": "-a=1",
        "trtexec": "--setBuildRoute=-a=1",
        "speedup": 1.25,
        "error": pytest.approx(0.004 / 0.64),
    }
    assert body_from_json(body_json(ROUTED)) == ROUTED


def test_an_engine_by_the_builders_own_route_has_none() -> None:
    assert shipped_route("f9", ROUTES) is None
    assert shipped_route("f1", None) is None
    assert shipped_route(None, ROUTES) is None


def test_what_a_route_is_worth_is_said_in_words() -> None:
    assert route_in_words(None) == ""
    assert "by the build route '-a=1', which makes it 1.25 times as fast" in route_in_words(shipped_route("f1", ROUTES))


def test_a_route_of_several_knobs_is_one_argument_of_a_shell() -> None:
    several = replace(ROUTES, tried=(replace(ROUTES.tried[0], route="-a=1 -b=2"),))
    found = shipped_route("f1", several)
    assert found is not None
    assert found.trtexec == "--setBuildRoute='-a=1 -b=2'"
