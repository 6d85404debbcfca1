from __future__ import annotations

import copy
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_builder.report_page import render, verdict_in_words

VOID = {"meta", "br", "img", "hr"}
LATENCY = {"median": 10.0, "p95": 11.0, "mad": 0.05, "runs": 100}
SIDE = {"latency_ms": LATENCY, "accuracy": 0.9, "size_bytes": 4_000_000, "precisions": {"fp32": 3, "int8": 1}}
VERDICT = {
    "answer": "met_on_sample",
    "metric": "top1",
    "drop": 0.001,
    "interval": [-0.002, 0.004],
    "confidence": 0.95,
    "n": 400,
    "selection": "held_out",
    "flips": 3,
    "budget": 0.0025,
    "probability_over_budget": 0.2,
    "samples_needed": 17_000,
    "method": "score_and_exact",
}
TRIAL = {
    "index": 1,
    "fingerprint": "f1",
    "order": "frontier",
    "low_layers": 1,
    "on_all": {"score": 0.8995, "excess": 0.001},
    "latency": {"median_ms": 8.0, "ratio": 0.8},
    "failure": None,
}
LAYER = {
    "name": "conv",
    "op_type": "Conv",
    "kind": "weighted",
    "precision": "int8",
    "macs": 1_234_567,
    "weights": 10,
    "loss": 0.01,
    "loss_error": 0.002,
    "hessian": None,
    "hessian_error": None,
}
BODY: dict[str, Any] = {
    "result": {
        "outcome": "improved",
        "reason": "The fastest.",
        "latency_source": "measured",
        "baseline": SIDE,
        "chosen": SIDE,
        "speedup": 1.25,
        "verdict": VERDICT,
        "engine": {"name": "engine.onnx", "sha256": "a" * 64, "size_bytes": 1},
        "environment": {"processor": "some CPU", "threads": 1},
    },
    "config": {"target": "onnxruntime-cpu", "outputs": {"logits": "logits"}},
    "notes": ["opset 11 converted to 17"],
    "layers": [LAYER],
    "trials": [TRIAL],
    "front": ["f1"],
    "repairs": [
        {
            "what": "smoothing",
            "where": ["conv", "gemm"],
            "loss_before": 0.2,
            "loss_after": 0.1,
            "gain_error": 0.01,
            "samples": 8,
            "kept": True,
        }
    ],
    "dependencies": [{"first": "conv", "second": "gemm", "dependency": 0.1, "error": 0.01, "samples": 64}],
}


class Page(HTMLParser):
    """The tags, texts and attributes of a page; a tag that does not fit fails."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.rows: list[int] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        if tag == "tr":
            self.rows.append(0)
        if tag in ("td", "th"):
            self.rows[-1] += 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def body(change: Callable[[dict[str, Any]], object] = lambda body: None) -> dict[str, Any]:
    changed = copy.deepcopy(BODY)
    change(changed)
    return changed


EMPTY = body(lambda item: item.update(notes=[], layers=[], trials=[], front=[], repairs=[], dependencies=[]))


@pytest.mark.parametrize("content", [BODY, EMPTY])
def test_the_page_is_well_formed(content: dict[str, Any]) -> None:
    page = Page(render(content))
    assert page.tags >= {"html", "title", "h1", "h2", "table", "p"}


@pytest.mark.parametrize("content", [BODY, EMPTY])
def test_the_page_loads_nothing(content: dict[str, Any]) -> None:
    text = render(content)
    assert not any(word in text for word in ("http:", "https:", "url(", "@import"))
    page = Page(text)
    assert not page.tags & {"script", "img", "link", "iframe", "object", "embed"}
    assert not page.attributes & {"src", "href", "onload", "onclick", "onerror"}


def test_the_page_shows_what_was_found() -> None:
    text = Page(render(BODY)).text
    for piece in ("The fastest.", "opset 11 converted to 17", "10.000 ms ± 0.050", "3 fp32, 1 int8", "1.25x", "1,234,567", "0.01 ± 0.002"):
        assert piece in text
    for piece in ("frontier", "0.8995", "1 (front)", "0.800", "some CPU", "0.1 ± 0.01", '"target": "onnxruntime-cpu"'):
        assert piece in text


def test_a_failed_trial_shows_why() -> None:
    failed = {**TRIAL, "on_all": None, "latency": None, "failure": "no such kernel", "fingerprint": "f2"}
    assert "no such kernel" in Page(render(body(lambda item: item.update(trials=[failed])))).text


@pytest.mark.parametrize(("excess", "word"), [(0.0, "yes"), (-0.001, "no")])
def test_a_trial_shows_whether_it_kept_the_budget(excess: float, word: str) -> None:
    trial = {**TRIAL, "on_all": {"score": 0.9, "excess": excess}}
    assert word in Page(render(body(lambda item: item.update(trials=[trial])))).texts


PLACES: dict[str, Callable[[dict[str, Any], str], object]] = {
    "reason": lambda item, text: item["result"].update(reason=text),
    "latency source": lambda item, text: item["result"].update(latency_source=text),
    "precision": lambda item, text: item["result"]["chosen"].update(precisions={text: 1}),
    "metric": lambda item, text: item["result"]["verdict"].update(metric=text),
    "environment key": lambda item, text: item["result"]["environment"].update({text: 1}),
    "environment value": lambda item, text: item["result"]["environment"].update(processor=text),
    "note": lambda item, text: item["notes"].append(text),
    "layer name": lambda item, text: item["layers"][0].update(name=text),
    "operator": lambda item, text: item["layers"][0].update(op_type=text),
    "layer precision": lambda item, text: item["layers"][0].update(precision=text),
    "order": lambda item, text: item["trials"][0].update(order=text),
    "trial index": lambda item, text: item["trials"][0].update(index=text),
    "failure": lambda item, text: item["trials"][0].update(failure=text),
    "repaired layer": lambda item, text: item["repairs"][0].update(where=[text]),
    "first of a pair": lambda item, text: item["dependencies"][0].update(first=text),
    "second of a pair": lambda item, text: item["dependencies"][0].update(second=text),
}


@pytest.mark.parametrize("place", PLACES)
@given(st.sampled_from(["</td></table><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "'\"><b>", "&lt;b&gt;", "ünï\u2028"]))
def test_text_from_outside_is_shown_as_text(place: str, text: str) -> None:
    plain = Page(render(BODY))
    page = Page(render(body(lambda item: PLACES[place](item, text))))
    assert text in page.text
    assert page.tags <= plain.tags
    assert page.attributes == plain.attributes


def test_an_output_name_in_the_settings_is_shown_as_text() -> None:
    page = Page(render(body(lambda item: item["config"].update(outputs={"<b>": "logits"}))))
    assert "<b>" in page.text
    assert "b" not in page.tags


def test_every_row_of_a_table_has_as_many_cells_as_its_head() -> None:
    counts = Page(render(BODY)).rows
    assert counts == [6, 6, 6, 6, 6, 5, 5, 7, 7, 3, 3, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("met", "The accuracy budget is met: top1 drops by +0.00100 (allowed +0.00250) on 400 samples, 3 of which changed"),
        ("met_on_sample", "About 17,000 samples with the same rates would settle it."),
        ("not_met", "The accuracy budget is not met: top1"),
    ],
)
def test_each_answer_has_its_words(answer: str, words: str) -> None:
    assert words in verdict_in_words({"verdict": {**VERDICT, "answer": answer}})


def test_a_verdict_that_no_number_of_samples_would_settle_names_none() -> None:
    assert "settle" not in verdict_in_words({"verdict": {**VERDICT, "samples_needed": None}})


def test_the_verdict_says_whether_the_search_saw_the_samples() -> None:
    assert "did not see these samples" in verdict_in_words({"verdict": VERDICT})
    assert "saw the same samples" in verdict_in_words({"verdict": {**VERDICT, "selection": "shared"}})


def test_a_small_probability_is_not_rounded_away() -> None:
    assert "0.4%" in verdict_in_words({"verdict": {**VERDICT, "probability_over_budget": 0.004}})
