from __future__ import annotations

import uuid

import httpx

from tests.service.api.access.tenants import client_of, finished, key_of
from tests.service.conftest import Server
from tests.service.jobs.test_uploads import assert_problem


def test_the_audit_log_says_who_did_what_and_holds_no_secret(server: Server, red: httpx.Client) -> None:
    mine = finished(red)
    red.get(f"/v1/jobs/{mine}/engine")
    red.get("/metrics")
    red.get(f"/v1/jobs/{uuid.uuid4()}")
    red.delete(f"/v1/jobs/{mine}")
    key = key_of(server, "red")
    with client_of(server, key) as client:
        server.deps.store.keys.revoke(key.id)
        client.get("/v1/jobs")
        client.get(f"/v1/jobs/{key}")
        client.get(f"/v1/jobs?key={key}")
    red_key = red.headers["Authorization"].split("_")[1]
    entries = server.client.get("/v1/audit?tenant=red&limit=1000").json()["entries"]
    own = [entry for entry in entries if entry["key"] == red_key][::-1]
    assert [(one["action"], one["status"], one["route"]) for one in own] == [
        ("submit", 202, "POST /v1/jobs"),
        ("download", 200, "GET /v1/jobs/{job_id}/engine"),
        ("refused", 403, "GET /metrics"),
        ("unknown job", 404, "GET /v1/jobs/{job_id}"),
        ("delete", 204, "DELETE /v1/jobs/{job_id}"),
    ]
    assert [one["job"] for one in own][:2] == [mine, mine]
    assert {one["address"] for one in own} == {"127.0.0.1"}
    strangers = [entry for entry in server.client.get("/v1/audit?limit=1000").json()["entries"] if entry["key"] is None]
    assert len(strangers) >= 3
    assert {entry["action"] for entry in strangers} == {"refused"}
    files = "".join(path.read_text() for path in (server.deps.settings.data_dir / "audit").iterdir())
    assert key.id in files  # of the one in a path
    for secret in (key.secret, red.headers["Authorization"].rpartition("_")[2], "operator"):
        assert secret not in files


def test_the_audit_log_can_be_asked_from_a_time_on(server: Server) -> None:
    assert server.client.get("/v1/audit?since=2999-01-01T00:00:00Z").json() == {"entries": []}
    assert server.client.get("/v1/audit", params={"since": "2020-01-01", "limit": 1}).json()["entries"]
    for odd in ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2016-12-31t23:59:60z"):
        assert server.client.get("/v1/audit", params={"since": odd}).status_code == 200, odd
    for wrong in ("yesterday", "2026-13-01T00:00:00Z"):
        assert_problem(server.client.get("/v1/audit", params={"since": wrong}), 422, "invalid-request")
