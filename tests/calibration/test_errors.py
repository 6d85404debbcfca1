from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.errors import (
    CalibrationError,
    InputError,
    InvalidCalibrationSetError,
    InvalidConfigError,
    InvalidModelError,
    OptimizerError,
    error_from_problem,
)

ERRORS = [OptimizerError, InputError, InvalidModelError, InvalidCalibrationSetError, InvalidConfigError, CalibrationError]


@given(cls=st.sampled_from(ERRORS), detail=st.text(), fix=st.text())
def test_error_survives_pickle_with_its_fields(cls: type[OptimizerError], detail: str, fix: str) -> None:
    error = cls(detail, fix=fix)
    again = pickle.loads(pickle.dumps(error))

    assert (type(again), again.detail, again.fix, str(again)) == (cls, error.detail, error.fix, error.detail)


@given(cls=st.sampled_from(ERRORS), detail=st.text(), fix=st.text())
def test_error_survives_json_as_a_problem_object(cls: type[OptimizerError], detail: str, fix: str) -> None:
    error = cls(detail, fix=fix)
    again = error_from_problem(json.loads(json.dumps(error.problem())))

    assert (type(again), again.detail, again.fix) == (cls, error.detail, error.fix)


def test_problem_object_has_the_five_members() -> None:
    assert InvalidModelError("model: broken", fix="Repair it.").problem() == {
        "type": "urn:onnx-trt-optimizer:problem:invalid-model",
        "title": "Invalid ONNX model",
        "status": 422,
        "detail": "model: broken",
        "fix": "Repair it.",
    }


def test_every_error_has_a_slug_of_its_own() -> None:
    assert len({cls.slug for cls in ERRORS}) == len(ERRORS)


@pytest.mark.parametrize("cls", [InvalidModelError, InvalidCalibrationSetError, InvalidConfigError])
def test_what_the_user_can_fix_is_a_4xx(cls: type[OptimizerError]) -> None:
    assert issubclass(cls, InputError)
    assert cls.status == 422


def test_problem_of_an_unknown_type_becomes_an_internal_error() -> None:
    error = error_from_problem({"type": "urn:elsewhere:odd", "detail": "what"})

    assert (type(error), error.status, error.detail, error.fix) == (OptimizerError, 500, "what", "")
