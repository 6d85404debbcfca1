from __future__ import annotations

import numpy as np
import pytest

from calibration.accuracy import resolution
from calibration.accuracy.budget import Budget
from calibration.accuracy.drop_posterior import probabilities_over, slack_draws
from calibration.accuracy.metrics import Metric
from calibration.accuracy.resolution import resolution_note, samples_that_tell
from calibration.accuracy.verdict import drop_evidence


@pytest.mark.parametrize("ratio", [0.95, 0.99, 0.999])
def test_so_many_unchanged_decisions_are_what_the_verdict_takes_for_likely_inside(ratio: float) -> None:
    needed = samples_that_tell(Budget(min_relative=ratio))
    assert needed is not None

    def over(n: int) -> float:
        evidence = drop_evidence(Metric.AGREEMENT, np.ones(n), np.ones(n), Budget(min_relative=ratio))
        return probabilities_over(slack_draws([evidence], np.random.default_rng(0), are_chosen_from=False, draws=20_000))[0]

    # the standard error of 20,000 draws is 0.0035; the probability is 0.5 at ``needed``, and falls with the logarithm of n by about 0.25
    assert over(round(1.2 * needed)) < 0.5 < over(round(needed / 1.3))


def test_a_budget_that_the_samples_can_tell_needs_no_note() -> None:
    assert resolution_note(24, Budget(min_relative=0.99), has_margins=False) is None
    assert resolution_note(8, Budget(max_nmse=1e-9), has_margins=False) is None


@pytest.mark.parametrize("ratio", [0.9, 0.99, 0.999, 0.9999])
def test_samples_that_clearly_can_tell_are_found_without_the_special_functions(ratio: float, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = samples_that_tell(Budget(min_relative=ratio))
    assert needed is not None
    assert needed <= 1.0 / (1.0 - ratio)  # more are never needed
    with monkeypatch.context() as patch:
        patch.setattr(resolution, "special", None)
        assert resolution_note(round(1.0 / (1.0 - ratio)) + 1, Budget(min_relative=ratio), has_margins=False) is None
    assert resolution_note(needed - 1, Budget(min_relative=ratio), has_margins=False) is not None


def test_a_finer_budget_says_what_could_tell_it_and_what_ships_meanwhile() -> None:
    words = resolution_note(24, Budget(min_relative=0.9999), has_margins=False)
    assert words == (
        "24 validation samples cannot tell a drop of 0.01% from none by counting (2,275 could, if no decision changed): "
        "an engine ships only if it changes no output of any sample"
    )
    by_margins = resolution_note(24, Budget(min_relative=0.9999), has_margins=True)
    assert by_margins is not None
    assert by_margins.endswith("only if its outputs move so little, by how clearly each decision is made, that it is likely inside")


def test_no_number_of_samples_can_tell_that_nothing_is_lost() -> None:
    assert samples_that_tell(Budget(min_relative=1.0)) is None
    words = resolution_note(10_000, Budget(min_relative=1.0), has_margins=True)
    assert words == (
        "10,000 validation samples cannot tell any drop at all from none by counting: "
        "an engine ships only if it changes no output of any sample"
    )
