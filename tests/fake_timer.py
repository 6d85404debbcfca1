"""A timer that runs each engine once and says what a test wants: every engine but the baseline is twice as fast, or half as fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine_builder.timing import Timing


@dataclass(frozen=True)
class FakeTimer:
    """Says that the baseline takes 2 ms and any other engine ``quantized_ms``."""

    quantized_ms: float = 1.0

    def __call__(self, calls: Mapping[str, Callable[[], object]], **how: object) -> dict[str, Timing]:
        for call in calls.values():
            call()
        alone = len(calls) == 1  # the baseline's own trial
        return {name: _timing(2.0 if alone or name == "baseline" else self.quantized_ms) for name in calls}


def _timing(milliseconds: float) -> Timing:
    return Timing(milliseconds, milliseconds, 0.0, 18, (milliseconds,) * 9)
