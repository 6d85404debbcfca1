"""Evaluation feeds whole batches and returns exactly one result per sample."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.data.dataset import CalibrationSet
from calibration.errors import InvalidModelError
from engine_builder.errors import EngineError
from engine_builder.evaluation.outputs import ComparedOutputs
from engine_builder.evaluation.run_samples import LARGE_BYTES, in_random_order, run_all, runs_at_once
from engine_builder.records.closed_loop import ClosedLoop
from tests.traced_memory import peak_bytes


class FakeRunner:
    """Doubles its input; remembers the batch sizes that it was fed."""

    def __init__(self, *, rows: int = 1, scalar: bool = False) -> None:
        self.batches: list[int] = []
        self._rows = rows
        self._scalar = scalar

    def run(self, feeds: Mapping[str, NDArray[np.generic]]) -> tuple[NDArray[np.generic], ...]:
        x = np.asarray(feeds["x"], dtype=np.float32)
        self.batches.append(len(x))
        assert x.flags["C_CONTIGUOUS"]
        return (np.asarray(x.sum()),) if self._scalar else (2 * x, np.repeat(x[:, 0], self._rows))

    def close(self) -> None:
        """Nothing to free."""


def samples(count: int) -> CalibrationSet:
    return CalibrationSet({"x": np.arange(count * 2, dtype=np.float32).reshape(count, 2)}, None)


@given(count=st.integers(1, 40), batch=st.integers(1, 50), rows=st.integers(1, 3))
def test_every_sample_comes_back_once_and_in_order(count: int, batch: int, rows: int) -> None:
    runner = FakeRunner(rows=rows)
    doubled, repeated = run_all(runner, samples(count), batch=batch)
    np.testing.assert_array_equal(doubled, 2 * samples(count).inputs["x"])
    np.testing.assert_array_equal(repeated, np.repeat(samples(count).inputs["x"][:, 0], rows))
    assert set(runner.batches) == {batch}  # engines of a fixed batch demand it


def test_an_output_without_samples_in_front_is_refused() -> None:
    with pytest.raises(InvalidModelError, match=r"output 0 has shape \(\)"):
        run_all(FakeRunner(scalar=True), samples(4), batch=2)


def test_outputs_of_all_samples_are_held_once() -> None:
    class WideRunner(FakeRunner):
        def run(self, feeds: Mapping[str, NDArray[np.generic]]) -> tuple[NDArray[np.generic], ...]:
            return (np.repeat(np.asarray(feeds["x"], dtype=np.float32), 10000, axis=1),)

    given = samples(64)
    (output,) = run_all(WideRunner(), given, batch=2)
    np.testing.assert_array_equal(output[:, ::10000], given.inputs["x"])
    assert peak_bytes(lambda: run_all(WideRunner(), given, batch=2)) < 1.2 * output.nbytes  # parts and their concatenation: twice


def test_an_output_of_another_size_in_each_call_is_refused() -> None:
    class GrowingRunner(FakeRunner):
        def run(self, feeds: Mapping[str, NDArray[np.generic]]) -> tuple[NDArray[np.generic], ...]:
            self.batches.append(len(feeds["x"]))
            return (np.zeros((len(feeds["x"]), len(self.batches))),)

    with pytest.raises(InvalidModelError, match=r"output 0 has shape \(2, 2\) in one call and rows of \(1,\) before"):
        run_all(GrowingRunner(), samples(4), batch=2)


def test_no_samples_and_no_batch_are_refused() -> None:
    with pytest.raises(EngineError, match="no samples"):
        run_all(FakeRunner(), samples(0), batch=2)
    with pytest.raises(ValueError, match="batch"):
        run_all(FakeRunner(), samples(2), batch=0)


def test_samples_in_a_random_order_share_calls_with_others_and_are_found_again() -> None:
    given = CalibrationSet(dict(samples(20).inputs), np.arange(20))
    mixed, loop, back = in_random_order(given, None, np.random.default_rng(3))
    assert loop is None
    assert mixed.labels is not None
    assert mixed.labels.tolist() != list(range(20))
    np.testing.assert_array_equal(mixed.labels[back], np.arange(20))
    np.testing.assert_array_equal(mixed.inputs["x"][back], given.inputs["x"])


@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=9), seed=st.integers(0, 9))
def test_sequences_in_a_random_order_stay_whole(lengths: list[int], seed: int) -> None:
    steps = replace(samples(sum(lengths)), starts={"h": np.arange(len(lengths))[:, None]})
    mixed, loop, back = in_random_order(steps, ClosedLoop({"h": 0}, tuple(lengths), False), np.random.default_rng(seed))
    assert loop is not None
    order = mixed.starts["h"][:, 0]
    assert loop.lengths == tuple(lengths[index] for index in order)
    sequences = np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])
    np.testing.assert_array_equal(mixed.inputs["x"][:, 0], 2 * np.concatenate([sequences[index] for index in order]))
    np.testing.assert_array_equal(mixed.inputs["x"][back], steps.inputs["x"])


@pytest.mark.parametrize(("side", "batch", "expected"), [(28, 1, 8), (224, 1, 8), (640, 1, 3), (640, 4, 1), (4096, 1, 1)])
def test_fewer_runs_go_on_at_once_where_pictures_are_large(side: int, batch: int, expected: int) -> None:
    pictures = np.broadcast_to(np.float32(0), (16, 3, side, side))

    assert runs_at_once(CalibrationSet({"x": pictures}, None), batch, 8) == expected


class NotedOutputs(ComparedOutputs):
    """Notes how it is asked."""

    def __init__(self) -> None:
        super().__init__(FakeRunner(), [0])
        self.asked: list[str] = []

    def run(self, feeds: Mapping[str, NDArray[np.generic]]) -> tuple[NDArray[np.generic], ...]:
        self.asked.append("run")
        return super().run(feeds)

    def run_giving_back(self, feeds: Mapping[str, NDArray[np.generic]]) -> tuple[NDArray[np.generic], ...]:
        self.asked.append("last")
        return super().run_giving_back(feeds)


def test_the_last_run_of_compared_outputs_is_told_that_no_other_follows() -> None:
    runner = NotedOutputs()

    (found,) = run_all(runner, samples(5), batch=2)

    assert runner.asked == ["run", "run", "last"]
    np.testing.assert_array_equal(found, 2 * samples(5).inputs["x"])


@pytest.mark.parametrize(("count", "expected"), [(1, ["last"]), (2, ["last", "last"]), (5, ["last", "run", "run", "run", "last"])])
def test_first_and_last_runs_on_large_samples_give_back_what_they_took_with_none_beside_them(count: int, expected: list[str]) -> None:
    class LargeOutputs(NotedOutputs):
        def __init__(self) -> None:
            super().__init__()
            self.beside: list[tuple[str, int]] = []
            self._running = 0
            self._lock = threading.Lock()

        def _noted(self, kind: str, run: Callable[[], tuple[NDArray[np.generic], ...]]) -> tuple[NDArray[np.generic], ...]:
            with self._lock:
                self._running += 1
                self.beside.append((kind, self._running))
            time.sleep(0.01)  # so that others would have begun
            try:
                return run()
            finally:
                with self._lock:
                    self._running -= 1

        def run(self, feeds: Mapping[str, NDArray[np.generic]]) -> tuple[NDArray[np.generic], ...]:
            return self._noted("run", lambda: super(LargeOutputs, self).run(feeds))

        def run_giving_back(self, feeds: Mapping[str, NDArray[np.generic]]) -> tuple[NDArray[np.generic], ...]:
            return self._noted("last", lambda: super(LargeOutputs, self).run_giving_back(feeds))

    runner, pictures = LargeOutputs(), np.broadcast_to(np.arange(count, dtype=np.float32)[:, None], (count, LARGE_BYTES // 4))

    (found,) = run_all(runner, CalibrationSet({"x": pictures}, None), batch=1, workers=4)

    assert runner.asked == expected
    assert [running for kind, running in runner.beside if kind == "last"] == [1] * expected.count("last")
    np.testing.assert_array_equal(found[:, 0], 2 * pictures[:, 0])
