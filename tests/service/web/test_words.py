from __future__ import annotations

import re

from calibration.accuracy.metrics import Metric
from engine_builder.reporting.verdict_words import _ANSWERS, _SELECTIONS
from service.jobs.records import JobState
from service.web.router import read_assets

WORDS = read_assets()["words.js"].content.decode()


def table(name: str) -> dict[str, str]:
    """Return a table of words.js."""
    (body,) = re.findall(rf"export const {name} = \{{\n(.*?)\n\}};", WORDS, re.DOTALL)
    return dict(re.findall(r"^  (\w+): (?:\{ words: )?\"([^\"]*)\"", body, re.MULTILINE))


def test_verdicts_have_the_words_of_the_report() -> None:
    assert table("ANSWERS") == {answer.value: words for answer, words in _ANSWERS.items()}
    assert table("SELECTIONS") == {selection.value: words for selection, words in _SELECTIONS.items()}


def test_every_state_has_a_word() -> None:
    assert table("STATES").keys() == {state.value for state in JobState}


def test_metrics_that_are_told_in_another_way_are_known() -> None:
    named = {name: set(re.findall(r'"(\w+)"', text)) for name, text in re.findall(r"const (ERRORS|DECIBELS) = new Set\((.*?)\);", WORDS)}
    assert named["ERRORS"] == {metric.value for metric in Metric if metric.spec.worsening == "rise"}
    assert named["DECIBELS"] == {metric.value for metric in Metric if metric.spec.unit == "dB"}
