"""What layers take, from profiles; where one kernel runs many layers, from engines that differ in some of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.number_formats.precision import Precision
from engine_builder.backends.base import Backend, Engine, Runner
from engine_builder.backends.kernels import KernelTime
from engine_builder.engines.quantized_engine import EngineRecipe
from engine_builder.errors import BuildError
from engine_builder.profiling import profiles as module
from engine_builder.profiling.profiles import MOST_PARTS, ONE_FORMAT, gains_of_parts, groups_to_time, profiled
from engine_builder.records.trial import Latency, Trial
from engine_builder.search.search_space import BASELINE, QuantizedLayers
from engine_builder.stage_io.engines import EngineJob
from engine_builder.timing import Timing, TimingPlan
from engine_builder.workspace.workspace import FileRef, StageContext
from tests.driver import Driver, inspection_of, ranged
from tests.engine_builder.profiling.test_layer_times import layer
from tests.model_text import cnn, samples_for

CNN_LAYERS = ("Conv_c1", "Conv_c2", "Add_sum", "Gemm_logits")
GAINS = {"Conv_c1": 0.4, "Conv_c2": 0.2, "Add_sum": 0.0, "Gemm_logits": 0.1}
SIX = tuple(layer(name, 10) for name in "abcdef")
REGION = (KernelTime(tuple("abcdef"), 6.0),)


def test_one_region_is_told_apart_part_by_part() -> None:
    assert groups_to_time(SIX, (REGION, REGION), "abcdef", ()) == tuple((name,) for name in "abcdef")
    many = tuple(map(str, range(40)))
    cut = groups_to_time(tuple(layer(name, 1) for name in many), [[KernelTime(many, 1.0)]], many, ())
    assert len(cut) == MOST_PARTS
    assert sum(cut, ()) == many


def test_regions_of_both_engines_count_and_those_that_overlap_are_one() -> None:
    other = (KernelTime(("a", "b"), 1.0), *(KernelTime((name,), 1.0) for name in "cdef"))
    one = (KernelTime(("b", "c"), 1.0), *(KernelTime((name,), 1.0) for name in "adef"))
    assert groups_to_time(SIX, (one, other), "abcdef", ()) == (("a",), ("b",), ("c",))


def test_layers_that_stay_at_the_baseline_or_move_together_need_no_telling_apart() -> None:
    pair = (KernelTime(("a", "b"), 1.0), KernelTime(("c",), 1.0))
    assert groups_to_time(SIX, (pair,), "abc", ()) == (("a",), ("b",))
    assert groups_to_time(SIX, (pair,), "abc", (("a", "b"),)) == ()
    assert groups_to_time(SIX, (pair,), "ac", ()) == ()


def test_a_part_gains_what_the_engine_without_it_takes_longer_split_by_work() -> None:
    layers = (layer("a", 30), layer("b", 10), layer("c", 5))
    gains = gains_of_parts((("a", "b"), ("c",)), {ONE_FORMAT: 2.0, "a": 2.8, "c": 1.9}, layers)
    assert gains == {"a": pytest.approx(0.6), "b": pytest.approx(0.2), "c": pytest.approx(-0.1)}


def test_a_part_whose_engine_does_not_build_is_not_known() -> None:
    assert gains_of_parts((("a",), ("b",)), {ONE_FORMAT: 2.0, "b": 3.0}, SIX) == {"b": 1.0}


class OneKernel:
    """Runs every engine as one kernel; an engine takes 1 ms less what its quantized layers save. ``broken`` does not build without that
    layer.
    """

    def __init__(self, broken: str | None = None) -> None:
        self.built: dict[Path, QuantizedLayers] = {}
        self.broken = broken

    def build(self, recipe: EngineRecipe, backend: Backend, context: StageContext) -> Engine:
        quantized = recipe.precisions
        if self.broken is not None and self.broken not in quantized:
            raise BuildError("it does not build", fix="none")
        path = context.scratch / "engine"
        self.built[path] = dict(quantized)
        return Engine(path, (), 1)

    def kernel_times(self, engine: Path, feeds: object, *, threads: int, scratch: Path) -> tuple[KernelTime, ...]:
        return (KernelTime(CNN_LAYERS, self.milliseconds(self.built.get(engine, {}))),)

    def open(self, engine: Path, *, threads: int) -> Runner:
        return _Opened(engine)

    def timings(self, runners: Mapping[str, Runner], feeds: Mapping[str, NDArray[np.generic]], plan: TimingPlan) -> Mapping[str, Timing]:
        found = {name: self.milliseconds(self.built[cast(_Opened, runner).engine]) for name, runner in runners.items()}
        return {name: Timing(ms, ms, 0.0, 9, (ms,)) for name, ms in found.items()}

    @staticmethod
    def milliseconds(quantized: QuantizedLayers) -> float:
        return 1.0 - sum(GAINS[name] for name in quantized)


class _Opened:
    def __init__(self, engine: Path) -> None:
        self.engine = engine
        self.is_open = True

    def run(self, feeds: Mapping[str, NDArray[np.generic]]) -> tuple[NDArray[np.generic], ...]:
        raise AssertionError("it is not run")

    def close(self) -> None:
        self.is_open = False


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Driver, EngineJob]:
    return ranged(tmp_path_factory.mktemp("job"), cnn(), samples_for(cnn(), 20))


def gains(
    job: tuple[Driver, EngineJob], folder: Path, backend: OneKernel, monkeypatch: pytest.MonkeyPatch, kept: FileRef | None = None
) -> dict[str, float]:
    """Return what each layer is found to gain in the engine with all of them quantized."""
    driver, basics = job
    monkeypatch.setattr(module, "build", backend.build)
    latency = Latency(1.0, 1.0, 0.01, 10, 1.0, 0.01, 1.0)
    quantized = dict.fromkeys(CNN_LAYERS, Precision.INT8)
    trial = Trial(1, "f1", quantized, "all_low", 4, None, None, 0.0, latency, 1, None, 1.0, None, engine=kept)
    context = StageContext(driver.workspace, folder, lambda fraction, message: None)
    found = profiled(basics, inspection_of(driver, basics), (trial,), cast(Backend, backend), context, ())
    return {name: times[BASELINE] - times["int8"] for name, times in found.items()}


def test_engines_that_differ_find_what_one_kernel_hides(
    job: tuple[Driver, EngineJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = OneKernel()
    assert gains(job, tmp_path, backend, monkeypatch) == pytest.approx(GAINS)
    left_out = [set(CNN_LAYERS) - set(quantized) for quantized in backend.built.values() if len(quantized) == len(CNN_LAYERS) - 1]
    assert left_out == [{"Conv_c1"}, {"Conv_c2"}, {"Gemm_logits"}]


@pytest.mark.parametrize(
    ("seconds_left", "built"),
    [(None, 3), (35.0, 3), (25.0, 2), (11.0, 1), (0.5, 0)],  # the trial took a second, each build takes ten
)
def test_no_engine_more_is_built_than_fits_into_the_time_that_is_left(
    job: tuple[Driver, EngineJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds_left: float | None, built: int
) -> None:
    backend, now = OneKernel(), [0.0]

    def build(recipe: EngineRecipe, target: Backend, context: StageContext) -> Engine:
        now[0] += 10.0
        return backend.build(recipe, target, context)

    kept = job[0].workspace.write_bytes("trials/f1.plan", b"plan")
    backend.built[job[0].workspace.path(kept)] = dict.fromkeys(CNN_LAYERS, Precision.INT8)
    monkeypatch.setattr(module, "build", build)
    latency = Latency(1.0, 1.0, 0.01, 10, 1.0, 0.01, 1.0)
    trial = Trial(
        1, "f1", dict.fromkeys(CNN_LAYERS, Precision.INT8), "all_low", 4, None, None, 0.0, latency, 1, None, 1.0, None, engine=kept
    )
    context = StageContext(job[0].workspace, tmp_path, lambda fraction, message: None)
    found = profiled(
        job[1],
        inspection_of(*job),
        (trial,),
        cast(Backend, backend),
        context,
        (),
        seconds_left=seconds_left,
        clock=lambda: now[0],
    )
    assert len(backend.built) - 1 == built
    assert found.keys() == set(CNN_LAYERS)


def test_an_engine_that_was_kept_is_not_built_again(job: tuple[Driver, EngineJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = OneKernel()
    kept = job[0].workspace.write_bytes("trials/f1.plan", b"plan")
    backend.built[job[0].workspace.path(kept)] = dict.fromkeys(CNN_LAYERS, Precision.INT8)
    assert gains(job, tmp_path, backend, monkeypatch, kept) == pytest.approx(GAINS)
    assert sorted(len(quantized) for quantized in backend.built.values()) == [3, 3, 3, 4]  # the kept one, and those without a part


def test_where_an_engine_does_not_build_the_kernel_is_split_by_work(
    job: tuple[Driver, EngineJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = gains(job, tmp_path, OneKernel(broken="Conv_c2"), monkeypatch)
    assert found["Conv_c1"] == pytest.approx(GAINS["Conv_c1"])
    macs = {item.name: item.macs for item in inspection_of(*job).model.layers}
    whole = sum(GAINS.values())
    assert found["Conv_c2"] == pytest.approx(whole * macs["Conv_c2"] / sum(macs.values()))


def test_where_the_engines_do_not_all_run_the_kernel_is_split_by_work_and_all_are_closed(
    job: tuple[Driver, EngineJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = OneKernel()
    opened: list[_Opened] = []

    def opens_two(engine: Path, *, threads: int) -> Runner:
        if len(opened) == 2:
            raise BuildError("no memory for a third", fix="none")
        opened.append(_Opened(engine))
        return opened[-1]

    monkeypatch.setattr(backend, "open", opens_two)
    macs = {item.name: item.macs for item in inspection_of(*job).model.layers}
    whole = sum(GAINS.values())
    assert gains(job, tmp_path, backend, monkeypatch) == pytest.approx(
        {name: whole * macs[name] / sum(macs.values()) for name in CNN_LAYERS}
    )
    assert [runner.is_open for runner in opened] == [False, False]


def test_layers_with_kernels_of_their_own_need_no_other_engine(
    job: tuple[Driver, EngineJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = OneKernel()
    every = itertools.repeat(0.25)
    monkeypatch.setattr(backend, "kernel_times", lambda *given, **named: tuple(KernelTime((name,), next(every)) for name in CNN_LAYERS))
    assert gains(job, tmp_path, backend, monkeypatch) == dict.fromkeys(CNN_LAYERS, 0.0)
    assert list(backend.built.values()) == [dict.fromkeys(CNN_LAYERS, Precision.INT8)]
