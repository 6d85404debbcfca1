"""Which engine ships: what is asked of its accuracy and of its speed.

By default an engine ships if it is more likely inside the budget than not, and worth it. A confidence that the user asks for demands the
answer ``met`` (``calibration.accuracy.verdict``). Of engines that are both, the fastest ships.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from calibration.accuracy.verdict import AccuracyVerdict, Answer
from engine_builder.timing import MIN_GAIN, SPREADS, RelativeLatency, Timing, is_tied, relative_latency

LEAST_GAIN = 0.03  # of the baseline's latency, beyond the spread of the timing: less is not worth another model


def is_accurate_enough(verdict: AccuracyVerdict, confidence: float | None, *, is_given: bool = False) -> bool:
    """Return whether an engine with this verdict may ship.

    Args:
        verdict: At the confidence, where one is asked for.
        confidence: Asked for, 0.5-1, or None.
        is_given: Whether the user asked for this very engine: then it ships.
    """
    return is_given or verdict.answer is Answer.MET or (verdict.answer is Answer.MET_ON_SAMPLE and confidence is None)


def is_worth_it(relative: RelativeLatency, *, are_outputs_equal: bool, least_gain: float = MIN_GAIN) -> bool:
    """Return whether an engine's gain in latency is worth having it.

    The gain must be above three MADs, as for any that is told from none, and exceed one MAD by ``LEAST_GAIN``. An engine whose outputs
    equal the float model's on every sample costs nothing: there any gain that the timing can tell will do.

    Args:
        relative: Of the engine to the baseline.
        are_outputs_equal: Whether every output is the float model's, bit for bit, on all samples.
        least_gain: Share of the baseline's latency, 0-1: a smaller gain is within the error of the target's latencies.
    """
    gain = 1.0 - relative.ratio
    if gain <= max(least_gain, SPREADS * relative.mad):
        return False
    return are_outputs_equal or gain - relative.mad >= LEAST_GAIN


def safest_of_fastest(faster: Sequence[str], timings: Mapping[str, Timing], baseline: str = "baseline") -> str | None:
    """Return the safest of the engines that the timing cannot tell from the fastest, or None of none.

    So the engine that ships beats each that is safer by more than the error of that difference.

    Args:
        faster: Names of engines that beat the baseline and are worth it, safest first.
        timings: All timings by name, of one call.
        baseline: The baseline's name.
    """
    if not faster:
        return None
    fastest = min(faster, key=lambda name: relative_latency(timings[name], timings[baseline]).ratio)
    return next(name for name in faster if is_tied(timings[name], timings[fastest]))
