"""The part of ``report.html`` about other budgets: in words, and as tables."""

from __future__ import annotations

from html import escape

from engine_builder.backends.base import Source
from engine_builder.reporting.amounts import probability_in_a_cell, times_in_words
from engine_builder.reporting.body.job_result import ReportedOffer
from engine_builder.reporting.body.report_body import ReportBody
from engine_builder.reporting.offers.words import speedup_in_words
from engine_builder.reporting.tables import counts, score, table


def offers_section(body: ReportBody) -> str:
    """Return what other budgets would give; nothing where no engine is faster than the baseline."""
    result = body.result
    offers, is_predicted = result.offers, result.latency_source is Source.PREDICTED
    if not offers.engines:
        return ""
    words = offers.in_words[:1].upper() + offers.in_words[1:]
    note = (
        "An engine is offered for a budget that it is more likely inside than not, by the same samples as the verdict (where a confidence "
        "is asked for: that it keeps with this confidence). Engines lie in the folder front/, each with the precision of its layers."
    )
    budgets = table(
        ["budget", "speed-up", "engine", "probability of keeping it"],
        [
            [
                f"{row.in_words}{' (asked for)' if row.is_asked else ''}",
                "nothing faster" if row.speedup is None else speedup_in_words(row.speedup, is_predicted=is_predicted),
                "baseline" if row.fingerprint is None else _named(row.fingerprint, body),
                "-" if row.verdict is None else probability_in_a_cell(1.0 - row.verdict.probability_over_budget),
            ]
            for row in offers.budgets
        ],
    )
    engines = table(
        ["engine", "speed-up", "accuracy", "keeps", "probability of that", "size", "layers", "file"],
        [
            [
                _named(one.fingerprint, body),
                times_in_words(one.speedup, None if one.mad is None else one.mad / one.ratio**2, is_predicted=is_predicted),
                score(one.accuracy, result.verdict.metric),
                one.in_words,
                probability_in_a_cell(1.0 - one.verdict.probability_over_budget),
                f"{one.size_bytes / 1e6:.2f} MB",
                counts(one.precisions),
                _file(one),
            ]
            for one in offers.engines
        ],
    )
    text = f"<h2>At other budgets</h2><p>{escape(words)}.</p><p class=note>{escape(note)}</p>"
    return f"{text}<div class=scroll>{budgets}</div><div class=scroll>{engines}</div>"


def _named(fingerprint: str, body: ReportBody) -> str:
    """Return an engine's name in the rest of the page."""
    index = next((trial.index for trial in body.trials if trial.fingerprint == fingerprint), None)
    name = fingerprint if index is None else f"trial {index}"
    return f"{name} (chosen)" if fingerprint == body.chosen else name


def _file(one: ReportedOffer) -> str:
    return one.file.name if one.file is not None else one.no_file or "-"
