"""What is said of how steadily engines were timed."""

from __future__ import annotations

from engine_builder.timing import RelativeLatency

BUSY = 0.1  # share of the wall time without a processor from which a machine counts as busy: idle ones have 0 to 0.03


def speedup_spread(relative: RelativeLatency) -> float:
    """Return the median absolute deviation of 1 / ratio, to first order."""
    return relative.mad / relative.ratio**2


def busy_warning(waited: float | None) -> tuple[str, ...]:
    """Return a warning where the machine had other work while engines were timed, else nothing.

    Args:
        waited: Largest share of a timed engine's wall time in which its thread had no processor, 0-1; None where that is not known.
    """
    if waited is None or waited < BUSY:
        return ()
    return (
        f"the machine was busy while engines were timed: their thread waited {waited:.0%} of the time for a processor. The speed-up is "
        "that of CPU time, which waiting does not change; the milliseconds are of the wall clock, and are fewer on an idle machine",
    )
