"""What a look at a job costs, and that it is a look at the present."""

from __future__ import annotations

import sqlalchemy as sa

from tests.service.conftest import Server


def test_a_look_at_a_job_is_one_statement(server: Server) -> None:
    job_id = server.submit(trials=1)["id"]
    server.wait(job_id, "succeeded")
    asked: list[str] = []

    def note(*given: object) -> None:
        if (statement := str(given[2])).lstrip().startswith("SELECT access_keys.") or "WHERE jobs.id = ?" in statement:
            asked.append(statement)

    sa.event.listen(server.deps.store.engine, "before_cursor_execute", note)
    try:
        looks = []
        for _ in range(5):  # the first one asks for keys, too, as does any that comes a second later
            asked.clear()
            assert server.client.get(f"/v1/jobs/{job_id}").json()["state"] == "succeeded"
            looks.append(tuple(asked))
    finally:
        sa.event.remove(server.deps.store.engine, "before_cursor_execute", note)
    fewest = min(looks, key=len)
    assert len(fewest) == 1
    assert "FROM jobs" in fewest[0]


def test_each_look_shows_the_last_change(server: Server) -> None:
    job_id = str(server.submit(trials=1, seconds=30)["id"])
    server.wait(job_id, "running")
    for progress in (0.5, 0.6, 0.7):
        server.deps.store.advance(job_id, "search", progress)
        assert server.client.get(f"/v1/jobs/{job_id}").json()["progress"] == progress
    assert server.client.post(f"/v1/jobs/{job_id}/cancel").json()["state"] == "cancelled"
    assert server.client.get(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"
    assert server.client.head(f"/v1/jobs/{job_id}").headers["content-length"]


def test_a_slash_in_the_id_leads_to_no_job(server: Server) -> None:
    for name in ("a%2Fb", "%00", "%F0%9F%98%80", "a?x=1"):
        assert server.client.get(f"/v1/jobs/{name}").status_code == 404
