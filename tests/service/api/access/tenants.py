"""Callers of several tenants on one server."""

from __future__ import annotations

import httpx

from service.access.caller import Role
from service.access.key_text import KeyText
from tests.fakes import fake_model
from tests.service.conftest import Server, wait_for_state

MODEL = fake_model(trials=0)
SLOW = fake_model(trials=1, seconds=30)


def key_of(server: Server, tenant: str, role: Role = Role.SUBMIT) -> KeyText:
    server.deps.store.tenants.ensure(tenant)
    return server.deps.store.keys.create(role, tenant)[0]


def client_of(server: Server, key: KeyText) -> httpx.Client:
    return httpx.Client(base_url=server.client.base_url, headers={"Authorization": f"Bearer {key}"}, trust_env=False)


def submit(client: httpx.Client, model: bytes = MODEL, **headers: str) -> str:
    answer = client.post("/v1/jobs", files={"model": model, "calibration": b"numbers"}, headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def finished(client: httpx.Client, model: bytes = MODEL) -> str:
    job_id = submit(client, model)
    assert wait_for_state(client, job_id)["state"] == "succeeded"
    return job_id
