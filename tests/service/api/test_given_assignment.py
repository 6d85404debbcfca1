from __future__ import annotations

import pytest

from tests.service.api.test_app import FILES, upload
from tests.service.conftest import Server
from tests.service.jobs.test_uploads import assert_problem


def test_an_assignment_is_a_part_of_its_own(server: Server) -> None:
    text = '{"conv1": "int8", "*": "fp32"}'
    as_file = server.client.post("/v1/jobs", files={**FILES, "assignment": ("assignment.json", text)}, data={"config": '{"threads": 2}'})
    ids = {"model_id": upload(server, FILES["model"]), "calibration_id": upload(server, FILES["calibration"])}
    as_json = server.client.post("/v1/jobs", json={**ids, "assignment": {"conv1": "int8", "*": "fp32"}})
    long = "{" + "".join(f'"layer{index}": "int8", ' for index in range(5000)) + '"*": "fp32"}'
    as_long_text = server.client.post("/v1/jobs", files={**FILES, "assignment": ("assignment.json", long)})
    for answer, layers in ((as_file, 2), (as_json, 2), (as_long_text, 5001)):
        assert answer.status_code == 202, answer.text
        assert len(answer.json()["config"]["assignment"]) == layers
        assert server.wait(answer.json()["id"])["state"] == "succeeded"
    assert as_file.json()["config"]["threads"] == 2


@pytest.mark.parametrize(
    ("assignment", "config", "words"),
    [
        ('{"*": "int8"}', '{"assignment": {"*": "int8"}}', "found assignment twice"),
        ('{"*": "int9"}', "{}", "int9"),
        ('{"*": "fp8"}', "{}", "asks for fp8"),
        ("[]", "{}", "assignment"),
        ("{", "{}", "not JSON"),
    ],
)
def test_an_assignment_that_cannot_be_used_is_refused(server: Server, assignment: str, config: str, words: str) -> None:
    answer = server.client.post("/v1/jobs", files=FILES, data={"assignment": assignment, "config": config})
    assert_problem(answer, 422, "invalid-config")
    assert words in answer.json()["detail"]
