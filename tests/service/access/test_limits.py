from __future__ import annotations

import pickle
from datetime import UTC, datetime

import pytest

from service.access.limits import LIMITS, Limits, Used, check_limit, reset_of, usage_json
from service.errors import QuotaExceededError

NIGHT = datetime(2026, 12, 31, 23, 59, 0, tzinfo=UTC)


def test_the_last_place_may_be_taken_and_no_further_one() -> None:
    check_limit("jobs_at_once", 1, 2, NIGHT)
    check_limit("stored_bytes", 90, 100, NIGHT, more=10)
    check_limit("jobs_at_once", 10**9, None, NIGHT)
    for used, more in ((2, 0), (3, 0), (0, 3), (1, 2)):
        with pytest.raises(QuotaExceededError):
            check_limit("jobs_at_once", used, 2, NIGHT, more=more)
    with pytest.raises(QuotaExceededError):
        check_limit("jobs_at_once", 0, 0, NIGHT)


def test_the_refusal_says_what_is_used_the_limit_and_when_it_counts_from_0_again() -> None:
    with pytest.raises(QuotaExceededError) as caught:
        check_limit("jobs_per_day", 1200, 1000, NIGHT)
    assert caught.value.detail == "quota jobs per day: 1,200 used of 1,000, and counts from 0 again at 2027-01-01 00:00 UTC"
    assert (caught.value.status, caught.value.retry_seconds) == (429, 60)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.detail, again.fix, again.retry_seconds) == (caught.value.detail, caught.value.fix, 60)


def test_what_would_never_fit_is_not_told_to_wait() -> None:
    with pytest.raises(QuotaExceededError) as caught:
        check_limit("jobs_at_once", 0, 3, NIGHT, more=4)
    assert caught.value.fix == "Ask for 3 at most at once, or the operator for a higher limit."
    with pytest.raises(QuotaExceededError) as caught:
        check_limit("jobs_at_once", 2, 3, NIGHT, more=3)
    assert caught.value.fix.startswith("Wait until one of your jobs has ended")


def test_days_and_months_end() -> None:
    assert reset_of("jobs_per_day", NIGHT) == datetime(2027, 1, 1, tzinfo=UTC)
    assert reset_of("gpu_minutes_per_month", datetime(2026, 2, 3, 4, tzinfo=UTC)) == datetime(2026, 3, 1, tzinfo=UTC)
    assert reset_of("stored_bytes", NIGHT) is None


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_has_words_of_its_own_and_is_shown(name: str) -> None:
    with pytest.raises(QuotaExceededError) as caught:
        check_limit(name, 5, 5, NIGHT)
    assert caught.value.fix
    shown = usage_json(Limits(**{name: 5}), Used(**{name: 3}), NIGHT)
    assert (shown[name]["used"], shown[name]["limit"]) == (3, 5)
    assert list(shown) == list(LIMITS)


def test_a_limit_of_nothing_is_nothing_to_wait_for() -> None:
    with pytest.raises(QuotaExceededError) as refused:
        check_limit("jobs_at_once", 0, 0, datetime(2026, 11, 30, tzinfo=UTC))
    assert "Wait" not in refused.value.fix
    assert "it is 0" in refused.value.fix
