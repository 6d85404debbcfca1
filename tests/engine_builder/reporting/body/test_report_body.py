from __future__ import annotations

import json
from dataclasses import replace

import pytest

from engine_builder.reporting.body.job_result import PredictedSpeedup
from engine_builder.reporting.body.report_body import ReportBody, body_from_json, body_json
from engine_builder.workspace.workspace import json_bytes
from tests.engine_builder.report_body import BODY, KEPT_BASELINE, RESULT, with_result

PREDICTED = replace(RESULT, speedup=None, predicted_speedup=PredictedSpeedup(1.25, (1.1, 1.5)))
REPAIRED = replace(RESULT, baseline=replace(RESULT.baseline, repaired="so"))


@pytest.mark.parametrize("body", [BODY, KEPT_BASELINE, with_result(PREDICTED), with_result(REPAIRED)])
def test_a_body_comes_back_from_the_file(body: ReportBody) -> None:
    assert body_from_json(json.loads(json_bytes(body_json(body)))) == body


def test_what_is_not_known_is_null_not_missing() -> None:
    found = body_json(KEPT_BASELINE)
    assert set(found) == set(body_json(BODY))
    assert [key for key, value in found.items() if value is None] == [
        "baseline_repair",
        "baseline_reached",
        "reached",
        "reached_in",
        "chosen",
        "not_corrected",
        "trtexec",
        "not_analysed",
    ]


def test_data_of_another_form_are_refused() -> None:
    with pytest.raises(TypeError, match="expected an object"):
        body_from_json(body_json(BODY) | {"search": "over"})
