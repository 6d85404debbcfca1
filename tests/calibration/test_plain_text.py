"""Whatever users send, what others read of it is short, visible, and says nothing of the server's folders."""

from __future__ import annotations

import sys
import tempfile
import time
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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("to postgresql+psycopg://me:p@ss:w0rd@host:5432/jobs failed", "to postgresql+psycopg://me:...@host:5432/jobs failed"),
        ("'ftp://user:hush@example.org/x' and https://a:b@c", "'ftp://user:...@example.org/x' and https://a:...@c"),
        ("s3://bucket/part at http://127.0.0.1:8333/x@y", "s3://bucket/part at http://127.0.0.1:8333/x@y"),
        (
            "GET https://s3/b/k?X-Amz-Credential=AK%2F1&X-Amz-Expires=900&X-Amz-Signature=ab12 gave 403",
            "GET https://s3/b/k?X-Amz-Credential=...&X-Amz-Expires=900&X-Amz-Signature=... gave 403",
        ),
        (
            "https://example.org/hook?access_token=hush#x 'https://e/?secret=a b'",
            "https://example.org/hook?access_token=...#x 'https://e/?secret=... b'",
        ),
        ("https://example.org/hook?tokens=3&x=token", "https://example.org/hook?tokens=3&x=token"),
    ],
)
def test_passwords_and_signatures_in_addresses_are_left_out(text: str, shown: str) -> None:
    assert plain_text(text) == shown
    assert plain_text(shown) == shown
    assert InvalidModelError(text, fix=text).problem()["detail"] == shown


@pytest.mark.parametrize("piece", ["a.", "?a", "://", "x://a:", "&token", "a:b@", "://:"])
def test_text_that_is_made_to_take_long_does_not(piece: str) -> None:
    text = ("http://" + piece * 16_000)[:16_000]
    began = time.process_time()
    plain_text(text)
    assert time.process_time() - began < 1.0  # it takes some milliseconds; what grows with the square takes seconds
