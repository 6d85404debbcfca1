from __future__ import annotations

import pytest

from service.client.views import job_view

JOB: dict[str, object] = {"id": "one", "state": "running", "stage": "search", "progress": 0.5, "trials": [], "result": None, "error": None}


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        ({}, "search"),
        ({"state": "queued"}, "queued"),
        ({"state": "on_hold", "hold": {"reason": "disk: it is full", "fix": "Make room."}}, "on hold: disk: it is full"),
        ({"state": "on_hold"}, "on hold"),
    ],
)
def test_what_a_job_is_at_is_said_in_words(shown: dict[str, object], words: str) -> None:
    assert job_view(JOB | shown).in_words == words
