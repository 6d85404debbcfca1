"""Whatever users send, what others read of it is short, visible, and says nothing of the server's folders."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.errors import InvalidModelError
from calibration.plain_text import MAX_CHARACTERS, folders_to_hide, plain_text

HIDDEN = folders_to_hide(Path("/srv/data"), Path("/srv/data/jobs/7"))


@given(st.text(max_size=200), st.integers(0, 200))
def test_result_is_short_and_printable_and_is_left_alone_the_next_time(text: str, times: int) -> None:
    found = plain_text(text * times, hidden=HIDDEN)
    assert len(found) <= MAX_CHARACTERS
    assert found.isprintable()
    assert plain_text(found) == found


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"]), max_size=MAX_CHARACTERS))
def test_short_text_that_can_be_seen_stays(text: str) -> None:
    assert plain_text(text) == text


def test_long_text_keeps_start_and_end_and_says_what_is_cut() -> None:
    found = plain_text("operator " + "A" * 20_000_000 + " is unknown")
    assert found.startswith("operator AAA")
    assert found.endswith("AAA is unknown")
    assert "characters cut" in found


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred\x07", "a\\x1b[31mred\\x07"),
        ("line\r\nINFO forged", "line  INFO forged"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("zero\0byte", "zero\\x00byte"),
        ("half \ud800", "half \\ud800"),
        ("\u2028", " "),
    ],
)
def test_what_cannot_be_seen_is_written_out(text: str, shown: str) -> None:
    assert plain_text(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("'/srv/data/jobs/7/inputs/model.onnx': broken", "'inputs/model.onnx': broken"),
        ("open /srv/data/store/ab failed", "open store/ab failed"),
        ("folder /srv/data: full", "folder : full"),
        ("/srv/database/x and /a/srv/data/x", "/srv/database/x and /a/srv/data/x"),
        (f"{tempfile.gettempdir()}/tmp123/x", "tmp123/x"),
        (f'File "{Path(__file__).parents[2]}/calibration/errors.py"', 'File "calibration/errors.py"'),
        (f"{sys.prefix}/lib/x.so", "lib/x.so"),
        ("node '/conv1/Conv' of /model/layer.0", "node '/conv1/Conv' of /model/layer.0"),
    ],
)
def test_folders_of_the_server_are_left_out(text: str, shown: str) -> None:
    assert plain_text(text, hidden=HIDDEN) == shown


def test_every_error_cleans_its_words() -> None:
    error = InvalidModelError("x" * 5000 + "\n", fix="\x07Look at /srv/data/x.")
    assert len(error.detail) == len(str(error)) == MAX_CHARACTERS
    assert error.problem()["fix"] == "\\x07Look at /srv/data/x."
    assert error.problem(HIDDEN)["fix"] == "\\x07Look at x."
