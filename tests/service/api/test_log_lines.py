"""No part of an event can forge a line of the log or fill the disk."""

from __future__ import annotations

import json
import logging
import sys

from service.access.key_text import new_key
from service.api.log_lines import MAX_TRACE_LINES, JsonLines, PlainLines


def line(message: str, *arguments: object, raised: BaseException | None = None) -> str:
    info = None if raised is None else (type(raised), raised, raised.__traceback__)
    record = logging.LogRecord("service", logging.INFO, __file__, 1, message, arguments, info)
    return PlainLines(("/srv/data",)).format(record)


def test_an_event_is_one_short_line() -> None:
    found = line("job %s: %s", 7, "A" * 20_000_000 + "\nINFO forged\x1b[2J")
    assert "\n" not in found
    assert "\x1b" not in found
    assert len(found) < 2100
    assert "INFO service: job 7: AAA" in found


def test_folders_of_the_server_are_left_out() -> None:
    assert line("cannot open %s", "/srv/data/jobs/7/x").endswith("cannot open jobs/7/x")


def test_what_was_raised_is_cut() -> None:
    def deep(depth: int) -> None:
        if depth:
            deep(depth - 1)
        raise ValueError("B" * 10_000_000)

    limit = sys.getrecursionlimit()
    try:
        deep(limit // 2)
    except ValueError as exc:
        found = line("failed", raised=exc)
    assert len(found.splitlines()) <= MAX_TRACE_LINES + 2
    assert max(map(len, found.splitlines())) <= 2000


def test_lines_may_be_json_with_the_job_they_are_about() -> None:
    job = "0d6f1b1e-6f0b-4a55-9f0c-0f6a3f0c2c55"
    record = logging.LogRecord("service.jobs", logging.WARNING, "", 1, "job %s: /data/x\n is gone", (job,), None)
    found = json.loads(JsonLines(["/data"]).format(record))
    assert (found["level"], found["logger"], found["job"]) == ("WARNING", "service.jobs", job)
    assert found["message"] == f"job {job}: x  is gone"
    assert found["time"].endswith("+00:00")


def test_json_lines_hold_what_was_raised_and_stay_one_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 1, "it failed", (), sys.exc_info())
    text = JsonLines([]).format(record)
    assert "\n" not in text
    found = json.loads(text)
    assert "job" not in found
    assert "Traceback" in found["raised"]
    assert "ValueError: two" in found["raised"]


def test_no_line_holds_a_key_or_a_password() -> None:
    key = new_key()
    for text in (
        line("%s at postgresql+psycopg://me:hush@host/jobs", key),
        line("failed", raised=ValueError(f"{key} postgresql://me:hush@host")),
    ):
        assert key.secret not in text
        assert key.id in text
        assert "hush" not in text
        assert "@host" in text
    record = logging.LogRecord("x", logging.ERROR, "", 1, "%s", (key,), None)
    assert key.secret not in JsonLines([]).format(record)
