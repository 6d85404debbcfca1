"""How a baseline came to its float fallback, in words."""

from __future__ import annotations

from engine_builder.records.float_plan import BaselineFallback, FloatAttempt

_NAMED = 8  # blocks that a note names


def fallback_in_words(fallback: BaselineFallback) -> str:
    """Return for a reader why and how the baseline got a float fallback."""
    own = fallback.attempts[0]
    start = f"the baseline in {own.name} misses the accuracy budget by itself, with a score of {_score(own)}"
    if own.score is None:
        start = f"the builder refuses the baseline in {own.name}"
    kept = next(one for one in fallback.attempts if one.name == fallback.kept and one.fits is fallback.fits)
    if not fallback.fits:
        return f"{start}, and so does every other that was tried: {kept.name} is the baseline, with a score of {_score(kept)}"
    given = [block.layer for block in fallback.blocks if block.precision.value != own.name]
    named = ", ".join(given[:_NAMED]) + (", ..." if len(given) > _NAMED else "")
    where = f" (from {named} on)" if 0 < len(given) < len(fallback.blocks) else ""
    cost = ""
    if own.latency_ms and kept.latency_ms:
        cost = f" and {kept.latency_ms / own.latency_ms:.2f} times its latency"
    return f"{start}: {kept.name}{where} is the baseline, with a score of {_score(kept)}{cost}; that is what low precisions have to beat"


def _score(attempt: FloatAttempt) -> str:
    return "none" if attempt.score is None else f"{attempt.score:.6g}"
