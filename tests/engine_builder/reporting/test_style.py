from __future__ import annotations

import re
from dataclasses import replace

import pytest

from engine_builder.backends.achieved_precision import AchievedPrecision
from engine_builder.reporting.body.layer_facts import DependencyMap
from engine_builder.reporting.figures.drawing import INK
from engine_builder.reporting.page import render
from tests.engine_builder.report_body import BODY, INT8, KEPT_BASELINE, layer, trial
from tests.engine_builder.reporting.page_reader import Page

CONTENTS = {"whole": BODY, "empty": KEPT_BASELINE}


def test_the_page_of_a_large_model_is_small_enough_to_send() -> None:
    names = [f"/base/encoder/layer.{index}/attention/output/dense/MatMul" for index in range(600)]
    lower = tuple(tuple(0.001 * (i - j) for j in range(i)) for i in range(60))
    body = replace(
        BODY,
        layers=tuple(layer(name, 0.1 / (index + 1), hessian=0.1) for index, name in enumerate(names)),
        dependency_map=DependencyMap(tuple(names[:60]), lower, tuple(names[60:])),
        trials=tuple(trial(index, index, 1.0 / (1 + 0.01 * index), 0.001) for index in range(200)),
        forecasts=(replace(BODY.forecasts[0], kernels_ms={name: {"baseline": 1.0, "int8": 0.5} for name in names}),),
        reached=tuple(AchievedPrecision(name, INT8, INT8, "kernel", None) for name in names),
    )
    assert len(render(body).encode()) < 1_500_000


@pytest.mark.parametrize("name", CONTENTS)
def test_everything_that_is_wide_scrolls_by_itself(name: str) -> None:
    source = render(CONTENTS[name])
    for tag in ("<table", "<svg"):
        assert all(source[:at].endswith("<div class=scroll>") for at in _places(source, tag))


def test_the_page_follows_a_dark_screen_a_phone_and_paper() -> None:
    source = render(BODY)
    assert all(rule in source for rule in ("@media screen and (prefers-color-scheme:dark)", "@media (max-width:40rem)", "@media print"))
    assert INK not in source  # a colour that no rule could change


def _places(text: str, part: str) -> list[int]:
    return [found.start() for found in re.finditer(re.escape(part), text)]


@pytest.mark.parametrize("name", CONTENTS)
def test_the_page_loads_nothing(name: str) -> None:
    page = Page(render(CONTENTS[name]))
    assert not any(word in page.source.replace("url(#", "") for word in ("http:", "https:", "url(", "@import"))
    assert not page.tags & {"script", "img", "link", "iframe", "object", "embed", "foreignobject"}
    assert not page.attributes & {"src", "href", "onload", "onclick", "onerror"}
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
