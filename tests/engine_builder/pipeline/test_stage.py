"""Stages as values: the table, the one way in and out of JSON, and what a request may hold."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calibration.accuracy.budget import Budget
from calibration.codec import as_object, json_from_value, value_from_json
from calibration.data.formats.preprocess import Preprocess, Resize, ResizeMode
from engine_builder.config.builder_options import BatchProfile
from engine_builder.config.config import Config, ShapeRange
from engine_builder.pipeline.stage import Stage, in_child, run
from engine_builder.pipeline.stage_table import KEPT_STAGES, STAGES, TABLE
from engine_builder.workspace.workspace import FileRef, StageContext, Workspace

PROGRESS_OF_THE_SEARCH = {"prepare", "trial", "predict"}  # these take turns


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    word: str
    file: FileRef | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    words: tuple[str, ...]


def twice(request: Asked, context: StageContext) -> Given:
    context.progress(1.0, "said")
    return Given((request.word, request.word))


TWICE = Stage("twice", f"{__name__}:twice", Asked, Given, (0.25, 0.5))


def test_a_stage_is_run_through_plain_json_with_its_name_and_progress() -> None:
    calls: list[tuple[object, ...]] = []

    def driver(name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> Mapping[str, object]:
        calls.append((name, stage, json.loads(json.dumps(request)), span))
        return {"result": {"words": ["a", "b"]}, "seconds": 2.0}

    assert run(driver, TWICE, Asked("hello")) == Given(("a", "b"))
    run(driver, TWICE, Asked("hello"), key="twice/1", span=(0.3, 0.4))
    asked = {"word": "hello", "file": None}
    assert calls == [("twice", "twice", asked, (0.25, 0.5)), ("twice/1", "twice", asked, (0.3, 0.4))]


def test_in_a_child_the_request_becomes_a_value_and_the_answer_json_with_its_seconds(tmp_path: Path) -> None:
    told: list[tuple[float, str]] = []
    context = StageContext(Workspace(tmp_path), tmp_path, lambda share, message: told.append((share, message)))
    answer = in_child(TWICE)({"word": "hello", "file": None}, context)
    assert answer["result"] == {"words": ["hello", "hello"]}
    assert isinstance(answer["seconds"], float)
    assert told == [(1.0, "said")]


def test_a_request_of_another_form_is_refused_by_the_place_that_is_wrong(tmp_path: Path) -> None:
    context = StageContext(Workspace(tmp_path), tmp_path, lambda share, message: None)
    with pytest.raises(TypeError, match=r"Asked\.word: expected str, found int"):
        in_child(TWICE)({"word": 3}, context)


def test_every_row_names_a_function_of_its_types() -> None:
    for stage in TABLE:
        module, name = stage.entry.split(":")
        hints = typing.get_type_hints(getattr(importlib.import_module(module), name))
        first = next(iter(hints))
        assert (hints[first], hints["return"]) == (stage.request, stage.result), stage.name


def test_rows_have_names_of_their_own_and_progress_that_rises() -> None:
    assert len(STAGES) == len(TABLE)
    assert all(0.0 <= stage.progress[0] <= stage.progress[1] <= 1.0 for stage in TABLE)
    shown = [stage for stage in TABLE if stage.name not in PROGRESS_OF_THE_SEARCH]
    assert all(one.progress[1] <= other.progress[0] for one, other in itertools.pairwise(shown))


def parts_of(kind: object) -> Iterator[object]:
    """Yield a type and every type that values of it are made of."""
    yield kind
    for argument in typing.get_args(kind):
        yield from parts_of(argument)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        for hint in typing.get_type_hints(kind).values():
            yield from parts_of(hint)


@pytest.mark.parametrize("stage", [stage for stage in TABLE if stage.is_kept], ids=lambda stage: stage.name)
def test_what_is_kept_for_other_jobs_is_not_asked_for_with_settings_that_its_stage_does_not_read(stage: Stage[object, object]) -> None:
    """A request is the key under which a result is kept: the whole of a job's settings would tie it to the budget and the search."""
    kinds = set(map(str, parts_of(stage.request)))
    assert str(Config) not in kinds
    assert not any("Budget" in kind or "SearchConfig" in kind for kind in kinds)


def test_stages_that_time_engines_are_never_kept() -> None:
    assert not {stage.name for stage in TABLE if stage.times_engines} & KEPT_STAGES


def values_of(kind: type) -> st.SearchStrategy[object]:
    return st.from_type(kind)


st.register_type_strategy(FileRef, st.builds(FileRef, st.sampled_from(["a.npz", "b/c.json"]), st.sampled_from(["0" * 64, "a" * 64])))
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
st.register_type_strategy(Config, st.just(Config()))
st.register_type_strategy(Budget, st.builds(Budget, min_relative=st.floats(0.0, 1.0)))
st.register_type_strategy(
    Preprocess, st.just(Preprocess(Resize((256,), ResizeMode.SHORTER_SIDE), (224,), 1.0, (0.5,), (0.2, 0.3, 0.4), classes=("cat",)))
)
st.register_type_strategy(ShapeRange, st.just(ShapeRange((1, 3), (2, 3), (4, 3))))
st.register_type_strategy(BatchProfile, st.just(BatchProfile(1, 2, 4)))
st.register_type_strategy(object, st.integers(-9, 9))


@pytest.mark.parametrize("stage", TABLE, ids=lambda stage: stage.name)
@pytest.mark.parametrize("side", ["request", "result"])
@settings(
    max_examples=5, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much], deadline=None
)
@given(data=st.data())
def test_requests_and_results_come_back_from_json_as_they_went(stage: Stage[object, object], side: str, data: st.DataObject) -> None:
    kind = getattr(stage, side)
    value = data.draw(values_of(kind))
    assert value_from_json(kind, json.loads(json.dumps(as_object(json_from_value(value))))) == value
