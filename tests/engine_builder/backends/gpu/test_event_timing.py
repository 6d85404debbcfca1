"""The timing procedure, on a GPU and a clock that pretend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from engine_builder.backends.gpu.cuda_runtime import Stream
from engine_builder.backends.gpu.event_timing import WARM_UP_SECONDS, GpuTiming, Work, time_on_gpu, transfers_on_gpu
from engine_builder.backends.gpu.state import GpuSample
from engine_builder.backends.nvidia.runner import TensorRtRunner
from engine_builder.errors import EngineError
from engine_builder.search.shipping_rule import is_worth_it
from engine_builder.timing import relative_latency
from tests.engine_builder.fake_gpu import FakeGpu
from tests.engine_builder.fake_tensorrt import fake_tensorrt


@dataclass
class FakeWork:
    """An engine that takes ``ms``, and ``cold_ms`` more when another ran before it; the GPU slows down as time passes."""

    gpu: FakeGpu
    name: str
    ms: float
    cold_ms: float = 0.0
    slowdown: float = 0.0  # share per second
    refuses: bool = False
    runs: list[float] = field(default_factory=list)

    def enqueue(self, stream: int) -> bool:
        cold = self.cold_ms if self.gpu.notes[-1:] != [self.name] else 0.0
        self.gpu.notes.append(self.name)
        self.gpu.now_ms += (self.ms + cold) * (1 + self.slowdown * self.gpu.clock())
        self.runs.append(self.gpu.now_ms)
        return not self.refuses

    def copy_in(self, stream: Stream) -> None:
        self.gpu.now_ms += 0.5

    def copy_out(self, stream: Stream) -> None:
        self.gpu.now_ms += 0.25


class WorkContract(ABC):
    """What timing relies on of an engine whose inputs lie on the GPU."""

    @abstractmethod
    def work(self, gpu: FakeGpu, folder: Path) -> Work:
        """Return work that is ready to run on this GPU."""

    def test_every_run_is_queued_and_takes_time(self, tmp_path: Path) -> None:
        gpu = FakeGpu()
        work, stream = self.work(gpu, tmp_path), gpu.create_stream()
        for _ in range(2):
            before = gpu.now_ms
            assert work.enqueue(stream.handle)
            assert gpu.now_ms > before

    def test_copies_take_time_of_their_own_each_way(self, tmp_path: Path) -> None:
        gpu = FakeGpu()
        found = transfers_on_gpu(self.work(gpu, tmp_path), gpu.create_stream(), runs=3)
        assert found.to_device_ms > 0
        assert found.to_host_ms > 0

    def test_it_is_timed_with_a_graph_and_without(self, tmp_path: Path) -> None:
        for use_graph in (True, False):
            gpu = FakeGpu()
            found = time_on_gpu({"it": self.work(gpu, tmp_path)}, gpu.create_stream(), seconds=0.05, use_graph=use_graph, clock=gpu.clock)
            assert found["it"].graph is use_graph
            assert found["it"].timing.median_ms > 0


class TestFakeWork(WorkContract):
    def work(self, gpu: FakeGpu, folder: Path) -> Work:
        return FakeWork(gpu, "it", 2.0)


class TestTensorRtRunner(WorkContract):
    def work(self, gpu: FakeGpu, folder: Path) -> Work:
        (folder / "engine.plan").write_bytes(b"double")
        runner = TensorRtRunner(fake_tensorrt(gpu), folder / "engine.plan", gpu)
        runner.prepare({"x": np.ones((2, 3), np.float32), "sizes": np.array([3], np.int64)})
        return runner


def timed(gpu: FakeGpu, *works: FakeWork, **options: object) -> dict[str, GpuTiming]:
    named = {work.name: work for work in works}
    return time_on_gpu(named, gpu.create_stream(), **{"seconds": 0.5, "clock": gpu.clock, **options})  # type: ignore[arg-type]  # mixed options


def test_median_is_the_gpu_time_of_a_run() -> None:
    gpu = FakeGpu()
    found = timed(gpu, FakeWork(gpu, "baseline", 2.0), FakeWork(gpu, "candidate", 1.5))
    assert found["baseline"].timing.median_ms == pytest.approx(2.0)
    assert found["candidate"].timing.median_ms == pytest.approx(1.5)
    assert found["candidate"].p90_ms == pytest.approx(1.5)
    assert found["candidate"].p99_ms == pytest.approx(1.5)


def test_short_runs_are_timed_many_at_once_and_long_ones_alone() -> None:
    gpu = FakeGpu()
    found = timed(gpu, FakeWork(gpu, "short", 0.01), FakeWork(gpu, "middle", 0.3), FakeWork(gpu, "long", 5.0))
    assert {name: timing.runs_in_sample for name, timing in found.items()} == {"short": 100, "middle": 4, "long": 1}
    assert found["short"].timing.median_ms == pytest.approx(0.01)


def test_slowing_clock_hits_all_engines_alike() -> None:
    gpu = FakeGpu()
    found = timed(gpu, FakeWork(gpu, "baseline", 2.0, slowdown=1.0), FakeWork(gpu, "candidate", 1.0, slowdown=1.0), seconds=2.0)
    assert found["baseline"].timing.block_ms[-1] > 1.5 * found["baseline"].timing.block_ms[0]
    relative = relative_latency(found["candidate"].timing, found["baseline"].timing)
    assert relative.ratio == pytest.approx(0.5, abs=0.01)
    assert is_worth_it(relative, are_outputs_equal=False)


def test_first_run_after_another_engine_is_not_counted() -> None:
    gpu = FakeGpu()
    found = timed(gpu, FakeWork(gpu, "a", 1.0, cold_ms=9.0), FakeWork(gpu, "b", 1.0, cold_ms=9.0), use_graph=False)
    assert found["a"].timing.median_ms == pytest.approx(1.0)


def test_warm_up_lasts_its_time_before_anything_counts() -> None:
    gpu = FakeGpu()
    work = FakeWork(gpu, "a", 1.0)
    found = timed(gpu, work, seconds=0.0, min_rounds=5, max_rounds=5)
    assert found["a"].timing.runs == 5
    assert len(work.runs) > WARM_UP_SECONDS * 1e3


def test_rounds_are_at_least_the_fewest_and_at_most_the_most() -> None:
    gpu = FakeGpu()
    assert len(timed(gpu, FakeWork(gpu, "a", 100.0), seconds=0.1)["a"].timing.block_ms) == 10
    assert len(timed(gpu, FakeWork(gpu, "a", 1.0), seconds=60.0, max_rounds=12)["a"].timing.block_ms) == 12


def test_graphs_are_launched_and_freed() -> None:
    gpu = FakeGpu()
    found = timed(gpu, FakeWork(gpu, "a", 1.0), FakeWork(gpu, "b", 1.0))
    assert found["a"].graph
    assert found["a"].no_graph_because is None
    assert gpu.notes.count("close graph") == 2


def test_without_graphs_all_are_timed_plainly_and_the_reason_is_kept() -> None:
    gpu = FakeGpu(graphs=False)
    found = timed(gpu, FakeWork(gpu, "a", 1.0), FakeWork(gpu, "b", 1.0))
    assert [found[name].graph for name in "ab"] == [False, False]
    assert found["b"].no_graph_because == "a: no graphs here"
    assert "launch" not in gpu.notes


def test_graphs_are_left_alone_when_not_asked_for() -> None:
    gpu = FakeGpu()
    assert timed(gpu, FakeWork(gpu, "a", 1.0), use_graph=False)["a"].no_graph_because == "not asked for"
    assert "launch" not in gpu.notes


def test_time_to_queue_a_run_is_told_apart() -> None:
    gpu = FakeGpu()
    assert timed(gpu, FakeWork(gpu, "a", 3.0))["a"].enqueue_ms == pytest.approx(3.0)


def test_the_state_as_last_read_is_kept_for_each_round() -> None:
    gpu = FakeGpu()
    read: list[float] = []

    def state() -> GpuSample:
        read.append(gpu.clock())
        return GpuSample(1500, 6000, 60, 70.0, ("power cap",) if gpu.clock() > 0.7 else (), ())

    found = timed(gpu, FakeWork(gpu, "a", 1.0), seconds=1.0, state=state)
    assert len(read) == len(found["a"].states)
    assert len(found["a"].states) == len(found["a"].timing.block_ms)
    held_back = [state is not None and state.held_back_by == ("power cap",) for state in found["a"].states]
    assert sum(held_back) / len(held_back) == pytest.approx(0.5, abs=0.1)
    assert set(timed(gpu, FakeWork(gpu, "a", 1.0))["a"].states) == {None}


def test_copies_are_timed_by_themselves() -> None:
    gpu = FakeGpu()
    transfers = transfers_on_gpu(FakeWork(gpu, "a", 1.0), gpu.create_stream())
    assert transfers.to_device_ms == pytest.approx(0.5)
    assert transfers.to_host_ms == pytest.approx(0.25)


def test_refused_run_is_an_engine_error_that_names_the_engine() -> None:
    gpu = FakeGpu()
    with pytest.raises(EngineError, match="candidate: the runtime refused"):
        timed(gpu, FakeWork(gpu, "candidate", 1.0, refuses=True))


def test_nothing_to_time_and_impossible_rounds_are_refused() -> None:
    gpu = FakeGpu()
    with pytest.raises(ValueError, match="nothing to time"):
        timed(gpu)
    with pytest.raises(ValueError, match="min_rounds is 3 and max_rounds 2"):
        timed(gpu, FakeWork(gpu, "a", 1.0), min_rounds=3, max_rounds=2)


def test_rounds_end_where_they_tell_enough_but_not_before_the_fewest() -> None:
    rounds = []
    for wanted in (5, 12):
        gpu = FakeGpu()
        works = FakeWork(gpu, "baseline", 2.0), FakeWork(gpu, "candidate", 1.5)
        found = timed(gpu, *works, enough=lambda blocks, wanted=wanted: len(blocks["candidate"]) >= wanted)
        rounds.append([len(timing.timing.block_ms) for timing in found.values()])
    assert rounds == [[10, 10], [12, 12]]
