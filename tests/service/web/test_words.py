from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from calibration.accuracy.measures.values import IDENTICAL_PSNR
from calibration.accuracy.metrics import Metric
from engine_builder.reporting.body.search_facts import _ORDERS
from engine_builder.reporting.verdict_words import _ANSWERS, _SELECTIONS
from service.jobs.records import JobState
from service.web.router import read_assets
from tests.service.conftest import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WORDS = read_assets()["words.js"].content.decode()
DECIBELS = {"answer": "met", "metric": "psnr", "drop": 95.4, "interval": [95, 96], "confidence": 0.95, "n": 60, "budget": 110}
OF_AN_OBJECTIVE = {"answer": "met", "metric": "top1", "n": 750, "budget": 0.0002, "probability_over_budget": 0.48}


def table(name: str) -> dict[str, str]:
    """Return a table of words.js."""
    (body,) = re.findall(rf"export const {name} = \{{\n(.*?)\n\}};", WORDS, re.DOTALL)
    return dict(re.findall(r"^  (\w+): (?:\{ words: )?\"([^\"]*)\"", body, re.MULTILINE))


def test_verdicts_have_the_words_of_the_report() -> None:
    assert table("ANSWERS") == {answer.value: words for answer, words in _ANSWERS.items()}
    assert table("SELECTIONS") == {selection.value: words for selection, words in _SELECTIONS.items()}


def test_whatever_proposes_an_engine_has_the_words_of_the_report() -> None:
    (body,) = re.findall(r"export const ORDERS = \{\n(.*?)\n\};", WORDS, re.DOTALL)
    assert dict(re.findall(r"^  \"?([\w+]+)\"?: \"([^\"]*)\"", body, re.MULTILINE)) == {str(name): words for name, words in _ORDERS.items()}


def test_every_state_has_a_word() -> None:
    assert table("STATES").keys() == {state.value for state in JobState}


def test_metrics_that_are_told_in_another_way_are_known() -> None:
    named = {name: set(re.findall(r'"(\w+)"', text)) for name, text in re.findall(r"const (ERRORS|DECIBELS) = new Set\((.*?)\);", WORDS)}
    assert named["ERRORS"] == {metric.value for metric in Metric if metric.spec.worsening == "rise"}
    assert named["DECIBELS"] == {metric.value for metric in Metric if metric.spec.unit == "dB"}


@pytest.fixture(scope="module")
def words(browser: Browser, server: Server) -> Iterator[Callable[[str], object]]:
    """Return what an expression over the functions of words.js gives in a browser in New York."""
    context = browser.new_context(timezone_id="America/New_York", locale="de-DE")
    tab = context.new_page()
    tab.goto(f"{str(server.client.base_url).rstrip('/')}/web/icon.svg")
    yield lambda text: tab.evaluate(f"import('/web/words.js').then((words) => {text})")
    context.close()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("words.duration(59.7)", "1 min 0 s"),
        ("words.duration(119.6)", "2 min 0 s"),
        ("words.duration(3599.6)", "1 h 0 min"),
        ("words.duration(7199)", "2 h 0 min"),
        ("words.milliseconds(3.3061)", "3.306 ms"),
        ("words.milliseconds(12345.6)", "12,346 ms"),
        ("words.bytes(999)", "999 bytes"),
        ("words.bytes(999_960)", "1.00 MB"),
        ("words.plusMinus(0.0027)", "±\N{NO-BREAK SPACE}0.003"),
        ("words.plusMinus(0.00001)", "±\N{NO-BREAK SPACE}0.001"),
        ("[1, 0.99, 0.572, 0.001].map(words.probability)", ["> 99%", "> 99%", "57.2%", "< 1%"]),
        ("[54.6282, 150].map((value) => words.score(value, 'psnr'))", ["54.63 dB", "identical"]),
        (
            f"words.verdictWords({{ verdict: {json.dumps(DECIBELS)} }})",
            [
                "The accuracy budget is met.",
                "Against the float model psnr is 54.60 dB, between 54.00 dB and 55.00 dB (each end with 95% confidence), on 60 samples; "
                "at least 40.00 dB is asked for.",
            ],
        ),
        (
            f"words.verdictWords({{ objective: {{}}, verdict: {json.dumps(OF_AN_OBJECTIVE)} }})",
            ["With probability 0.52 the engine loses at most +0.00020 of the float model's top1, on 750 samples."],
        ),
        ("words.lost(95.4, 'psnr')", "\N{EN DASH}"),
        ("words.allowedDrop({ config: { accuracy: { metric: 'psnr', min_psnr: 40 } }, trials: [] })", 110),
        ("words.probability(NaN)", "\N{EN DASH}"),
        ("words.moment('2026-07-29T19:12:30Z')", "29 Jul 2026, 15:12 GMT-4"),
        ("words.speedWords({ outcome: 'baseline_kept', predicted_speedup: { value: 1 } })", "the baseline is kept"),
        ("words.speedWords({ outcome: 'improved', predicted_speedup: { value: 1.5 } })", "predicted, not measured: 1.50 times as fast"),
    ],
)
def test_numbers_and_times_are_told_as_a_person_reads_them(words: Callable[[str], object], text: str, told: object) -> None:
    assert words(text) == told


def test_outputs_that_are_identical_have_the_decibels_of_the_report() -> None:
    assert re.search(r"const IDENTICAL = (\d+);", WORDS).group(1) == f"{IDENTICAL_PSNR:.0f}"  # type: ignore[union-attr]
