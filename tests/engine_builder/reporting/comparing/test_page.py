from __future__ import annotations

from dataclasses import replace

from calibration.accuracy.verdict import Answer
from engine_builder.reporting.comparing.jobs_plot import HIGHEST, share_of_budget
from engine_builder.reporting.comparing.page import compare_page, differences
from engine_builder.reporting.comparing.read_jobs import ComparedJob
from tests.engine_builder.report_body import BODY, KEPT_BASELINE, RESULT, VERDICT
from tests.engine_builder.reporting.page_reader import Page

OTHER = replace(
    BODY,
    result=replace(
        RESULT, speedup=2.0, verdict=replace(VERDICT, answer=Answer.NOT_MET, drop=0.005), environment={"processor": "other CPU"}
    ),
)
JOBS = (ComparedJob("<first>", BODY), ComparedJob("second", OTHER), ComparedJob("third", KEPT_BASELINE))


def test_each_job_has_a_row() -> None:
    page = Page(compare_page(JOBS))
    first, second, third = ({name: " ".join(cell.split()) for name, cell in row.items()} for row in page.sections["Jobs"].rows)
    assert first == {
        "job": "<first>",
        "model": "-",
        "speed-up": "1.25x ± 0.02",
        "milliseconds": "10 → 8",
        "score": "top1 0.9000 → 0.8990",
        "budget taken": "40%",
        "verdict": "likely met",
        "inside the budget": "80.0%",
        "size": "4.00 MB → 1.00 MB",
        "layers": "3 fp32, 1 int8",
        "made": "-",
    }
    assert (second["verdict"], second["budget taken"]) == ("not met", "200%")
    assert (third["speed-up"], third["milliseconds"], third["budget taken"]) == ("baseline kept", "10", "0%")
    assert page.source.count("<tr class=picked><td>second</td>") == 1  # the fastest


def test_the_page_has_a_headline_for_each_job_and_one_plot() -> None:
    page = Page(compare_page(JOBS))
    assert page.headings[0] == "3 jobs compared"
    text = page.sections["3 jobs compared"].text
    assert "<first>: An engine 1.25x as fast" in text
    assert "third: The baseline is kept." in text
    assert page.plots == ["Speed-up of each job against the share of its accuracy budget"]
    assert {"<first>", "second", "third", "not met", "baseline kept", "the whole budget"} <= set(page.texts)
    assert not page.tags & {"script", "img", "link"}


def test_what_keeps_numbers_from_being_compared_is_told() -> None:
    assert differences(JOBS) == ["machine: some CPU, 1 thread (<first>, third); other CPU (second)"]
    assert differences(JOBS[:1]) == []
    assert "What else differs" not in Page(compare_page(JOBS[:1])).sections


def test_a_budget_of_nothing_is_taken_by_any_loss() -> None:
    result = replace(RESULT, verdict=replace(VERDICT, budget=0.0))
    assert [share_of_budget(result, drop) for drop in (-0.1, 0.0, 0.1)] == [0.0, 0.0, HIGHEST]
