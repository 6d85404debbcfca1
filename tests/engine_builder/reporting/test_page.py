from __future__ import annotations

from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from typing import Any

import pytest

from engine_builder.reporting.page import render, verdict_in_words
from tests.engine_builder.report_body import BODY, NOT_TRIED, VERDICT, body, layer, trial

VOID = {"meta", "br", "img", "hr"}


class Page(HTMLParser):
    """The tags, texts and attributes of a page; a tag that does not fit fails."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()
        self.ids: list[str] = []
        self.plots: list[str] = []
        self.texts: list[str] = []
        self.rows: list[int] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        values = {name: value or "" for name, value in attrs}
        self.links.update(value for name, value in values.items() if name == "xlink:href")
        self.ids += [values["id"]] if "id" in values else []
        if tag == "svg":
            self.plots.append(values["aria-label"])
        if tag == "tr":
            self.rows.append(0)
        if tag in ("td", "th"):
            self.rows[-1] += 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def changes(**parts: object) -> Callable[[dict[str, Any]], object]:
    return lambda item: item.update(parts)


NOTHING: dict[str, Any] = {
    "notes": [],
    "layers": [],
    "trials": [],
    "front": [],
    "dependencies": [],
    "repairs": [],
    "predictions": [],
    "forecasts": [],
}
OPTIONAL = ("repairs", "data", "chosen", "dependency_map", "forecasts", "predictions", "final_timing", "search", "probes")


@cache
def page_of(name: str) -> tuple[str, Page]:
    contents = {"whole": BODY, "empty": body(changes(**NOTHING, dependency_map={"layers": [], "lower": [], "left_out": []}, chosen=None))}
    text = render(contents[name])
    return text, Page(text)


@pytest.mark.parametrize("name", ["whole", "empty"])
def test_the_page_is_well_formed(name: str) -> None:
    _, page = page_of(name)
    assert page.tags >= {"html", "title", "h1", "h2", "table", "p"}
    assert len(page.ids) == len(set(page.ids))


@pytest.mark.parametrize("name", ["whole", "empty"])
def test_the_page_loads_nothing(name: str) -> None:
    text, page = page_of(name)
    assert not any(word in text.replace("url(#", "") for word in ("http:", "https:", "url(", "@import"))
    assert not page.tags & {"script", "img", "link", "iframe", "object", "embed", "foreignobject"}
    assert not page.attributes & {"src", "href", "onload", "onclick", "onerror"}
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)


def test_the_page_shows_what_was_found() -> None:
    text = page_of("whole")[1].text
    for piece in ("The fastest.", "opset 11 converted to 17", "10.000 ms ± 0.050", "3 fp32, 1 int8", "1.25x", "1,234,567", "0.01 ± 0.002"):
        assert piece in text
    for piece in ("frontier", "0.8985", "1 (front)", "0.800", "some CPU", "0.1 ± 0.01", '"target": "onnxruntime-cpu"', "a" * 64):
        assert piece in text


def test_the_headline_gives_both_times_with_their_spread() -> None:
    text = page_of("whole")[1].text.replace("\N{NO-BREAK SPACE}", " ")
    for piece in ("10.000 ± 0.050 ms → 10.000 ± 0.050 ms", "0.800 ± 0.010 of the baseline's", "allowed drop 0.00250"):
        assert piece in text


def test_the_page_has_a_plot_of_everything() -> None:
    plots = " ".join(page_of("whole")[1].plots)
    for piece in ("Accuracy against latency", "order of the search", "Sensitivity", "Kernel time", "Dependency", "Predicted"):
        assert piece in plots


def test_a_page_without_measurements_has_no_plots() -> None:
    assert page_of("empty")[1].plots == []


@pytest.mark.parametrize("missing", OPTIONAL)
def test_a_part_that_is_not_there_is_left_out(missing: str) -> None:
    Page(render({key: value for key, value in body(changes(layers=[], trials=[])).items() if key != missing}))


def test_the_kept_baseline_stands_alone() -> None:
    kept = body(changes(chosen=None, trials=[trial(0, 0, 1.0, 0.0025, "baseline")], front=["f0"]))
    kept["result"].update(outcome="baseline_kept", reason="None was faster.")
    text = Page(render(kept)).text
    assert "baseline kept" in text
    assert "→" not in text


def test_the_page_says_how_to_repeat_it() -> None:
    text = page_of("whole")[1].text
    assert "optimize model.onnx --calibration calibration.npz --validation validation.npz --config config.json" in text


@pytest.mark.parametrize(
    ("held_out", "shared", "argument"), [(True, False, ""), (False, True, " --validation calibration.npz"), (True, True, "")]
)
def test_the_command_names_the_files_that_were_given(held_out: bool, shared: bool, argument: str) -> None:
    data = {"validation_held_out_of_calibration": held_out, "calibration_is_validation": shared}
    text = Page(render(body(changes(data=data, trials=[], layers=[], dependency_map=None)))).text
    assert f"--calibration calibration.npz{argument} --config" in text


def test_the_page_says_what_the_repairs_gained() -> None:
    assert "Smoothing: 1 of 2 kept, which took the loss from 0.2 to 0.125." in page_of("whole")[1].text


def test_a_failed_trial_shows_why() -> None:
    failed = {**trial(2, 1, 0.8, 0.0), **NOT_TRIED}
    assert "no such kernel" in Page(render(body(changes(trials=[failed])))).text


@pytest.mark.parametrize(("excess", "word"), [(0.0, "yes"), (-0.001, "no")])
def test_a_trial_shows_whether_it_kept_the_budget(excess: float, word: str) -> None:
    assert word in Page(render(body(changes(trials=[trial(1, 1, 0.8, excess)])))).texts


def test_layers_that_are_not_in_the_map_are_named() -> None:
    found = {"layers": ["conv", "gemm"], "lower": [[], [0.1]], "left_out": ["weak", "weaker"]}
    page = Page(render(body(changes(dependency_map=found, trials=[], layers=[]))))
    assert "2 layers with weaker dependencies are not in the map" in page.text
    assert "weak, weaker" in page.text


PLACES: dict[str, Callable[[dict[str, Any], str], object]] = {
    "reason": lambda item, text: item["result"].update(reason=text),
    "latency source": lambda item, text: item["result"].update(latency_source=text),
    "precision": lambda item, text: item["result"]["chosen"].update(precisions={text: 1}),
    "metric": lambda item, text: item["result"]["verdict"].update(metric=text),
    "environment key": lambda item, text: item["result"]["environment"].update({text: 1}),
    "environment value": lambda item, text: item["result"]["environment"].update(processor=text),
    "note": lambda item, text: item["notes"].append(text),
    "layer name": lambda item, text: item["layers"].append(layer(text)),
    "output": lambda item, text: item["config"]["outputs"].update({text: "logits"}),
    "operator": lambda item, text: item["layers"][0].update(op_type=text),
    "layer precision": lambda item, text: item["layers"][0].update(precision=text),
    "order": lambda item, text: item["trials"][0].update(order=text),
    "trial index": lambda item, text: item["trials"][0].update(index=text),
    "failure": lambda item, text: item["trials"].append({**trial(9, 1, 1.0, 0.0), **NOT_TRIED, "failure": text}),
    "repaired layer": lambda item, text: item["repairs"][0].update(where=[text]),
    "repair": lambda item, text: item["repairs"][0].update(what=text),
    "pair": lambda item, text: item["dependencies"][0].update(first=text, second=text),
    "map": lambda item, text: item["dependency_map"].update(layers=["conv", text], left_out=[text]),
    "end": lambda item, text: item["search"].update(ended=text),
    "data": lambda item, text: item["data"].update(metric=text),
}


@pytest.mark.parametrize("text", ["</td></svg><script>", "'<b id=x onload=1>&lt;", "$x_1$ ünï\u2028--><b>"])
def test_text_from_outside_is_shown_as_text(text: str) -> None:
    def everywhere(item: dict[str, Any]) -> None:
        for number, place in enumerate(PLACES.values()):
            place(item, f"{text}{number}")

    plain, page = page_of("whole")[1], Page(render(body(everywhere)))
    for number, name in enumerate(PLACES):
        assert f"{text}{number}" in page.text, name
    assert page.tags <= plain.tags
    assert page.attributes <= plain.attributes
    assert len(page.plots) == len(plain.plots)


def test_facts_of_the_data_read_as_words() -> None:
    data = {"validation_held_out_of_calibration": True, "calibration_is_validation": False, "outputs": ["logits", "values"]}
    text = render({**BODY, "data": data})
    for cells in (("validation held out of calibration", "yes"), ("calibration is validation", "no"), ("outputs", "logits, values")):
        assert "<td>{}</td><td>{}</td>".format(*cells) in text


def test_every_row_of_a_table_has_as_many_cells_as_its_head() -> None:
    counts = page_of("whole")[1].rows
    assert counts == [5, 5, 5, 7, 7, 7, 7, 7, 7, 7, 6, 6, 6, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("met", "The accuracy budget is met: top1 drops by 0.00100 (allowed 0.00250) on 400 samples, 3 of which changed"),
        ("met_on_sample", "About 17,000 samples with the same rates would settle it."),
        ("not_met", "The accuracy budget is not met: top1"),
    ],
)
def test_each_answer_has_its_words(answer: str, words: str) -> None:
    assert words in verdict_in_words({"verdict": {**VERDICT, "answer": answer}})


def test_an_error_rises_and_a_small_one_is_not_rounded_away() -> None:
    verdict = {**VERDICT, "metric": "nmse", "drop": 2e-6, "budget": 5e-6, "interval": [1e-6, 3e-6]}
    words = verdict_in_words({"verdict": verdict})
    assert "nmse rises by 2.00e-06 (allowed 5.00e-06)" in words
    assert "interval of the rise: +1.00e-06 to +3.00e-06" in words
    assert "drop" not in words


def test_psnr_is_told_in_decibels_beside_the_least_that_is_allowed() -> None:
    verdict = {**VERDICT, "metric": "psnr", "drop": 102.5, "budget": 110.0, "interval": [102.0, 103.0]}
    words = verdict_in_words({"verdict": verdict})
    assert "psnr is 47.50 dB (at least 40.00) on 400 samples" in words
    assert "interval: 47.00 to 48.00 dB" in words
    assert "at least 40.00 dB" in render({**BODY, "result": {**BODY["result"], "verdict": verdict}})


def test_the_interval_is_not_passed_off_as_a_two_sided_one() -> None:
    assert "each end with 95% confidence (both at once: at least 90%)" in verdict_in_words({"verdict": VERDICT})
    assert "each end with 99.5% confidence (both at once: at least 99%)" in verdict_in_words({"verdict": {**VERDICT, "confidence": 0.995}})


def test_a_verdict_that_no_number_of_samples_would_settle_names_none() -> None:
    assert "settle" not in verdict_in_words({"verdict": {**VERDICT, "samples_needed": None}})


def test_the_verdict_says_whether_the_search_saw_the_samples() -> None:
    assert "did not see these samples" in verdict_in_words({"verdict": VERDICT})
    assert "saw the same samples" in verdict_in_words({"verdict": {**VERDICT, "selection": "shared"}})


def test_a_small_probability_is_not_rounded_away() -> None:
    assert "0.4%" in verdict_in_words({"verdict": {**VERDICT, "probability_over_budget": 0.004}})


def test_what_layers_got_names_the_trial_where_that_is_not_the_engine_that_is_kept() -> None:
    rows = [{"layer": "conv", "asked": "int8", "got": "int8", "kernel": "k", "reason": None}]
    contents = body(changes(reached=rows, reached_in=3))
    chosen = Page(render(contents))
    contents["result"]["outcome"] = "baseline_kept"
    kept = Page(render(contents))
    assert "Asked for and got in trial 3, which is not what is kept" in kept.text
    assert "Asked for and got" in chosen.text
    assert "which is not what is kept" not in chosen.text


def test_scores_of_errors_keep_their_digits() -> None:
    contents = body()
    for name in ("baseline", "chosen"):
        contents["result"][name]["accuracy"] = 9.45e-08
    contents["result"]["verdict"]["budget"] = 1e-7
    text = Page(render(contents)).text
    assert "9.45e-08" in text
    assert "allowed drop 1.00e-07" in text


def test_the_environment_says_what_the_probes_ran_on() -> None:
    assert "probes ran on</td><td>CPUExecutionProvider" in page_of("whole")[0]


def test_of_the_users_own_model_nothing_is_estimated() -> None:
    words = verdict_in_words({"verdict": {**VERDICT, "answer": "met", "method": "same_engine"}})
    assert words == "The accuracy budget is met: the engine is the model that was uploaded, so that nothing is lost."
