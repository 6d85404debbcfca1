from __future__ import annotations

import pytest

from engine_builder.backends.kernels import KernelTime
from engine_builder.interchange.trtexec_profile import trtexec_profile


def test_layers_stand_in_the_form_of_trtexec_after_the_number_of_runs() -> None:
    times = (
        KernelTime(("a",), 0.3, layer="conv + relu", mean_ms=0.35, runs=24),
        KernelTime((), 0.05, layer="reformat", mean_ms=0.15, runs=24),
    )
    count, conv, reformat = trtexec_profile(times)
    assert count == {"count": 24}
    assert list(conv) == ["name", "timeMs", "averageMs", "medianMs", "percentage"]
    assert (conv["name"], conv["averageMs"], conv["medianMs"]) == ("conv + relu", 0.35, 0.3)
    assert conv["timeMs"] == pytest.approx(24 * 0.35)
    assert (conv["percentage"], reformat["percentage"]) == pytest.approx((70.0, 30.0))


def test_an_engine_without_layers_has_a_profile_of_none() -> None:
    assert trtexec_profile(()) == [{"count": 0}]
