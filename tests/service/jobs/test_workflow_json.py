from __future__ import annotations

import json

import pytest
from dbos import error as dbos_error
from hypothesis import given
from hypothesis import strategies as st

from calibration.errors import InvalidModelError, OptimizerError
from engine_builder.errors import StageCrashedError
from service.jobs.workflow_json import JsonSerializer

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_values_survive(value: object) -> None:
    serializer = JsonSerializer()
    assert serializer.deserialize(serializer.serialize(value)) == value


@pytest.mark.parametrize("kind", [InvalidModelError, StageCrashedError, OptimizerError])
def test_our_errors_come_back_as_what_they_were(kind: type[OptimizerError]) -> None:
    serializer = JsonSerializer()
    found = serializer.deserialize(serializer.serialize(kind("model: wrong", fix="Send another.")))
    assert type(found) is kind
    assert isinstance(found, OptimizerError)
    assert (found.detail, found.fix) == ("model: wrong", "Send another.")


def test_the_seconds_of_a_failed_stage_are_stored_with_it() -> None:
    serializer = JsonSerializer()
    error = StageCrashedError("signal 11", fix="none")
    error.seconds = 12.5
    found = serializer.deserialize(serializer.serialize(error))
    assert isinstance(found, StageCrashedError)
    assert found.seconds == 12.5


def test_an_error_that_was_stored_without_seconds_is_read() -> None:
    found = JsonSerializer().deserialize(json.dumps({"__error__": StageCrashedError("signal 11", fix="none").problem()}))
    assert isinstance(found, StageCrashedError)
    assert found.seconds == 0.0


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad"),
        KeyError("key"),
        dbos_error.DBOSUnexpectedStepError("job", 3, "expected", "recorded"),
        dbos_error.DBOSMaxStepRetriesExceeded("step", 3, [ValueError("inner")]),
    ],
)
def test_errors_of_others_are_kept_with_their_message(error: Exception) -> None:
    serializer = JsonSerializer()
    found = serializer.deserialize(serializer.serialize(error))
    assert isinstance(found, OptimizerError)
    assert type(error).__name__ in found.detail


def test_what_is_stored_is_text_that_cannot_run_code() -> None:
    assert JsonSerializer().serialize({"args": ("id",), "kwargs": {}}) == '{"args": ["id"], "kwargs": {}}'
