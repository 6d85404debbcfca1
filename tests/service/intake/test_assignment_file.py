from __future__ import annotations

from pathlib import Path

import pytest

from calibration.errors import InvalidConfigError
from service.intake.assignment_file import assignment_value
from service.intake.common_keys import config_with


def test_a_file_is_read_and_anything_else_is_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "assignment.json"
    path.write_text('{"conv1": "int8", "*": "fp32"}')
    value = {"conv1": "int8", "*": "fp32"}
    assert assignment_value(path) == assignment_value(str(path)) == assignment_value(value) == value


def test_it_takes_the_place_of_that_in_the_configuration(tmp_path: Path) -> None:
    found = config_with({"assignment": {"*": "fp32"}}, {"assignment": {"conv1": "int8", "*": "fp32"}})
    assert found.assignment == {"conv1": "int8", "*": "fp32"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not text"),
        (b'{"a": "int8", "a": "fp32"}', "twice"),
        (b"{}", "an empty object"),
    ],
)
def test_a_file_that_is_no_assignment_says_so(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "assignment.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidConfigError, match=words):
        assignment_value(path)
