"""Errors of a server at a terminal."""

from __future__ import annotations

import re
import socket
from contextlib import closing

import pytest

from calibration.errors import OptimizerError
from service.cli.own_words import in_own_words
from service.database.engine import open_session
from service.errors import NotFoundError, StorageError, UnauthorizedError


@pytest.mark.parametrize(("is_key_set", "found"), [(True, "is another"), (False, "none is set")])
def test_a_wrong_key_is_said_by_the_variable_that_holds_it(is_key_set: bool, found: str) -> None:
    error = UnauthorizedError("Authorization: expected a key of this server", fix="Send the header 'Authorization: Bearer <key>'.")
    detail, fix = in_own_words(error, is_key_set=is_key_set)
    assert found in detail
    assert fix == "Set ONNX_TRT_OPTIMIZER_API_KEY to the key that the server's operator gave you."


@pytest.mark.parametrize(
    "fix", ["List the jobs with GET /v1/jobs.", "Choose a target that GET /v1/targets lists.", "Upload it with POST /v1/files first."]
)
def test_routes_are_said_as_commands(fix: str) -> None:
    said = " ".join(in_own_words(NotFoundError("job 'x': there is no such job", fix=fix), is_key_set=False))
    assert not re.search(r"GET|POST|/v1", said)
    assert "`" in said or "Submit" in said


@pytest.mark.parametrize("state", ["revoked", "expired"])
def test_a_key_that_is_good_no_more_is_said_to_be(state: str) -> None:
    error = UnauthorizedError(f"Authorization: the key 0123456789ab is {state}", fix="Ask the operator for another key.")
    assert in_own_words(error, is_key_set=True) == (error.detail, error.fix)


def test_a_database_that_is_not_reached_is_told_with_what_it_said() -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        with pytest.raises(StorageError) as caught:
            open_session(f"postgresql+psycopg://someone:secret@127.0.0.1:{taken.getsockname()[1]}/db")
    detail, _ = in_own_words(caught.value, is_key_set=False)
    assert detail.startswith("database: it cannot be reached (")
    assert "refused" in detail
    assert "secret" not in detail
    assert "refused" not in caught.value.detail  # which callers see


def test_all_else_stays_as_it_is() -> None:
    assert in_own_words(OptimizerError("a", fix="b"), is_key_set=True) == ("a", "b")
