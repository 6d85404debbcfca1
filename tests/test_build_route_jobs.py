"""Whole jobs for the target tensorrt whose builder has knobs: precisions and build routes are searched together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.model_text import cnn
from tests.tensorrt_stand_in.fixtures import environment as environment  # a fixture, as the next two
from tests.tensorrt_stand_in.fixtures import place as place
from tests.tensorrt_stand_in.fixtures import server as server
from tests.tensorrt_stand_in.orders import Effect, Harm, KnobOrder, Orders, give_orders, is_hanging, noted_builds
from tests.tensorrt_stand_in.server import StandInServer, until

pytestmark = pytest.mark.long
FUSE = KnobOrder("-slice_fusion", {"on": Effect(), "off": Effect(times=0.8)})
TILE = KnobOrder("-kgen:tile", {"1": Effect(), "2": Effect(times=0.9), "3": Effect(times=1.5)})
WRONG = KnobOrder("-fast_math", {"off": Effect(), "on": Effect(times=0.5, is_wrong=True)})
CRASH = KnobOrder("-copy", {"on": Effect(), "off": Effect(harm=Harm.CRASH)})
SAME = KnobOrder("-pad", {"0": Effect(), "1": Effect()})
HANG = KnobOrder("-loop", {"off": Effect(), "on": Effect(harm=Harm.HANG)})
LOW_MS = 0.031  # of the engine with every layer quantized, as the stand-in has it


def asked(**builder: object) -> Mapping[str, Any]:
    return {
        "target": "tensorrt",
        "precisions": ["int8"],
        "accuracy": {"metric": "cosine", "min_relative": 0.9},
        "calibration": {"repair": False},
        "search": {"max_trials": 12},
        "builder": builder,
    }


def routes_built(place: Path) -> list[str]:
    return [build.route for build in noted_builds(place) if build.route]


def test_what_helps_is_mixed_and_what_is_wrong_slower_or_crashes_is_left_out(server: StandInServer, place: Path) -> None:
    give_orders(place, Orders(knobs=(FUSE, TILE, WRONG, CRASH, SAME)))
    result, report = server.finished(cnn(), asked(build_routes="mixed"))
    best = "-slice_fusion=off -kgen:tile=2"
    assert result["build_route"]["route"] == best
    assert result["build_route"]["trtexec"] == f"--setBuildRoute='{best}'"
    assert result["build_route"]["speedup"] == pytest.approx(1 / 0.72, rel=0.02)
    assert f"build route '{best}'" in result["reason"]
    assert f"'--setBuildRoute={best}'" in report["trtexec"]
    assert result["speedup"] == pytest.approx(0.061 / (0.72 * LOW_MS), rel=0.03)
    tried = {one["route"]: one for one in report["routes"]["tried"]}
    assert {route for route, one in tried.items() if one["helped"]} == {"-slice_fusion=off", "-kgen:tile=2", best}
    assert tried["-fast_math=on"]["why_not"] == "its engine is outside the budget"
    assert "SIGSEGV" in tried["-copy=off"]["why_not"]
    assert tried["-kgen:tile=3"]["why_not"] == "its engine is not faster"
    assert "not faster" in tried["-pad=1"]["why_not"]
    assert (report["routes"]["knobs"], report["routes"]["ended"]) == (5, "every route that may help was tried")
    assert sorted(routes_built(place)) == sorted(tried)  # each once, and none in the verdict
    assert [trial["build_route"] for trial in report["trials"] if trial["order"] == "route"] == ["-slice_fusion=off", "-kgen:tile=2", best]


def test_a_job_killed_in_a_route_goes_on_without_building_finished_ones_again(server: StandInServer, place: Path) -> None:
    before = len(routes_built(place))
    give_orders(place, Orders(knobs=(FUSE, HANG, TILE)))
    job = server.submit(cnn(), asked(build_routes="fast"))
    until(lambda: is_hanging(place), "no build hangs")
    give_orders(place, Orders(knobs=(FUSE, replace(HANG, values={"off": Effect(), "on": Effect()}), TILE)))
    server.kill_and_start_again()
    result = server.wait(job)["result"]
    assert result["build_route"]["route"] == "-slice_fusion=off"
    assert routes_built(place)[before:] == ["-slice_fusion=off", "-loop=on", "-loop=on", "-kgen:tile=2", "-kgen:tile=3"]


def test_a_tensorrt_without_knobs_says_so_and_ships_its_own_route(server: StandInServer, place: Path) -> None:
    give_orders(place, Orders(version="11.0.0.114", knobs=(FUSE,)))
    result, report = server.finished(cnn(), asked())
    assert result["outcome"] == "improved"
    assert "build_route" not in result
    assert "routes" not in report
    assert any("no build routes were tried" in note for note in report["notes"])
