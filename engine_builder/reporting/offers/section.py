"""The part of ``report.html`` about other budgets: in words, and as tables."""

from __future__ import annotations

from html import escape

from engine_builder.backends.base import Source
from engine_builder.reporting.amounts import times_in_words
from engine_builder.reporting.body.job_result import JobResult, ReportedOffer
from engine_builder.reporting.offers.words import speedup_in_words
from engine_builder.reporting.tables import counts, score, table


def offers_section(result: JobResult) -> str:
    """Return what other budgets would give; nothing where no engine is faster than the baseline."""
    offers, is_predicted = result.offers, result.latency_source is Source.PREDICTED
    if not offers.engines:
        return ""
    words = offers.in_words[:1].upper() + offers.in_words[1:]
    note = (
        "An engine is offered for a budget that it is more likely inside than not, by the same samples as the verdict (where a confidence "
        "is asked for: that it keeps with this confidence). Engines lie in the folder front/, each with the precision of its layers."
    )
    budgets = table(
        ["budget", "speedup", "engine", "probability of being over it"],
        [
            [
                f"{row.in_words}{' (asked for)' if row.is_asked else ''}",
                "nothing faster" if row.speedup is None else speedup_in_words(row.speedup, is_predicted=is_predicted),
                row.fingerprint or "baseline",
                "-" if row.verdict is None else f"{row.verdict.probability_over_budget:.1%}",
            ]
            for row in offers.budgets
        ],
    )
    engines = table(
        ["engine", "speedup", "accuracy", "inside", "probability of being over it", "size", "layers", "file"],
        [
            [
                one.fingerprint,
                times_in_words(one.speedup, None if one.mad is None else one.mad / one.ratio**2, is_predicted=is_predicted),
                score(one.accuracy),
                one.in_words,
                f"{one.verdict.probability_over_budget:.1%}",
                f"{one.size_bytes / 1e6:.2f} MB",
                counts(one.precisions),
                _file(one),
            ]
            for one in offers.engines
        ],
    )
    text = f"<h2>At other budgets</h2><p>{escape(words)}.</p><p class=note>{escape(note)}</p>"
    return f"{text}<div class=scroll>{budgets}</div><div class=scroll>{engines}</div>"


def _file(one: ReportedOffer) -> str:
    return one.file.name if one.file is not None else one.no_file or "-"
