"""A request that is repeated with its idempotency key is the same only with the same webhook, whose secret nobody can try out."""

from __future__ import annotations

import hashlib
import json
import uuid

import httpx

from tests.service.api.test_app import FILES
from tests.service.conftest import Server
from tests.service.jobs.test_uploads import assert_problem


def test_webhook_is_part_of_what_an_idempotency_key_stands_for(server: Server) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}

    def submitted(secret: str) -> httpx.Response:
        webhook = json.dumps({"url": "https://example.org/hook", "secret": secret})
        return server.client.post("/v1/jobs", files=FILES, data={"webhook": webhook}, headers=headers)

    first, again = submitted("hush"), submitted("hush")
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert_problem(submitted("other"), 422, "invalid-request")
    assert server.client.post(f"/v1/jobs/{first.json()['id']}/cancel").status_code == 200
    with server.deps.store.engine.connect() as connection:  # a plain digest of a short secret would be found by trying
        kept = connection.exec_driver_sql("SELECT request_sha256 FROM jobs WHERE id = ?", (first.json()["id"],)).scalar_one()
        same = connection.exec_driver_sql("SELECT config, inputs FROM jobs WHERE id = ?", (first.json()["id"],)).one()
    files = {role: ref["sha256"] for role, ref in json.loads(same.inputs).items()}
    request = {"config": json.loads(same.config), "files": files, "webhook": {"url": "https://example.org/hook", "secret": "hush"}}
    assert kept != hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
