from __future__ import annotations

import httpx

from service.access.caller import Role
from tests.service.api.access.tenants import client_of, key_of
from tests.service.conftest import Server
from tests.service.jobs.test_uploads import assert_problem


def test_an_admin_lists_and_revokes_keys_from_afar(server: Server, red: httpx.Client) -> None:
    admin_key, key = key_of(server, "green", Role.ADMIN), key_of(server, "red", Role.READ)
    with client_of(server, admin_key) as admin, client_of(server, key) as reader:
        listed = admin.get("/v1/keys")
        (found,) = (one for one in listed.json()["keys"] if one["id"] == key.id)
        assert {name: found[name] for name in ("role", "tenant", "state")} == {"role": "read", "tenant": "red", "state": "active"}
        assert key.secret not in listed.text
        assert key.secret_sha256 not in listed.text
        assert_problem(red.post(f"/v1/keys/{key.id}/revoke"), 403, "forbidden")
        assert reader.get("/v1/jobs").status_code == 200
        assert admin.post(f"/v1/keys/{key.id}/revoke").json()["state"] == "revoked"
        assert "is revoked" in str(assert_problem(reader.get("/v1/jobs"), 401, "unauthorized")["detail"])
        assert_problem(admin.post("/v1/keys/none/revoke"), 404, "not-found")
    (entry,) = (
        one for one in server.client.get("/v1/audit?limit=1000").json()["entries"] if one["action"] == "key revoked" and one["about"]
    )
    assert (entry["key"], entry["about"]) == (admin_key.id, f"key {key.id}, role read, tenant red")
