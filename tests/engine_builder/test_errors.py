"""Errors of engines keep what they know when they cross a process."""

from __future__ import annotations

import pickle

import pytest

from engine_builder.errors import BuildError, EngineError, StageTimeoutError


@pytest.mark.parametrize("kind", [EngineError, BuildError, StageTimeoutError])
def test_an_engine_error_survives_pickle_with_its_seconds(kind: type[EngineError]) -> None:
    error = kind("too long", fix="wait")
    assert error.seconds == 0.0
    error.seconds = 3.5
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.detail, again.fix, again.seconds) == (kind, "too long", "wait", 3.5)


def test_seconds_are_no_member_of_the_problem_object() -> None:
    error = BuildError("no kernel", fix="none")
    error.seconds = 3.5
    assert set(error.problem()) == {"type", "title", "status", "detail", "fix"}
