"""Both CUDA adapters keep one contract; their real host code runs against a stub driver that records the calls."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from calibration.codec import value_from_json
from engine_builder.backends.gpu.cuda_runtime import check_room
from engine_builder.backends.gpu.devices import ADAPTERS, open_cuda
from engine_builder.errors import EngineError, UnsupportedTargetError
from tests.engine_builder.cuda_steps import walk
from tests.engine_builder.fake_gpu import FakeGpu
from tests.engine_builder.stub_driver import COMPILER, NO_COMPILER, build_driver

ROOT = Path(__file__).resolve().parents[4]
MODULES = {"cuda.core": "cuda.core", "pycuda": "pycuda"}


@dataclass(frozen=True)
class Steps:
    """What one adapter saw, and the driver calls of each of its steps."""

    seen: dict[str, object]
    calls: dict[str, list[str]]

    @property
    def all_calls(self) -> list[str]:
        return [call for calls in self.calls.values() for call in calls]


def take_steps(adapter: str, folder: Path, **environment: str) -> Steps:
    if COMPILER is None:
        pytest.skip(NO_COMPILER)
    if find_spec(MODULES[adapter]) is None:
        pytest.skip(f"{adapter} is not installed")
    linked: list[Path] = []
    if adapter == "pycuda":
        spec = find_spec("pycuda")
        assert spec is not None
        assert spec.submodule_search_locations is not None
        linked = sorted(Path(spec.submodule_search_locations[0]).glob("_driver*.so"))
    driver = build_driver(folder, linked)
    log = folder / "calls.txt"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CUDA_", "STUB_"))}
    path = os.pathsep.join(filter(None, (str(driver), inherited.get("LD_LIBRARY_PATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine_builder.cuda_steps", adapter],
        cwd=ROOT,
        env={**inherited, "LD_LIBRARY_PATH": path, "STUB_DRIVER_LOG": str(log), **environment},
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    calls: dict[str, list[str]] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            calls[line[2:]] = []
        elif calls:
            calls[list(calls)[-1]].append(line)
    return Steps(json.loads(done.stdout), calls)


def find_spec(module: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(module)
    except ModuleNotFoundError:  # its parent is missing
        return None


@pytest.fixture(scope="module", params=list(ADAPTERS))
def steps(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Steps:
    return take_steps(request.param, tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="module", params=list(ADAPTERS))
def seen_on_the_gpu(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    if find_spec(MODULES[request.param]) is None:
        pytest.skip(f"{request.param} is not installed")
    log = tmp_path_factory.mktemp("steps") / "calls.txt"  # where steps are headed; the real driver writes nothing there
    command = [sys.executable, "-m", "tests.engine_builder.cuda_steps", request.param]
    environment = {**os.environ, "STUB_DRIVER_LOG": str(log)}
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


class CudaRuntimeContract:
    """What every runtime keeps, with its buffers, streams, events and graphs; a test class gives what ``cuda_steps.walk`` has ``seen``."""

    def test_device_and_package_are_named(self, seen: dict[str, object]) -> None:
        name, place, capability, uuid = value_from_json(tuple[str, str, tuple[int, int], str], seen["device"])
        assert name.startswith("NVIDIA ")
        assert re.fullmatch(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]", place)
        assert capability >= (7, 5)
        assert uuid
        assert re.fullmatch(r"\S+ \d+(\.\d+)+\S*", value_from_json(str, seen["package"]))

    def test_stream_has_a_handle_of_its_own(self, seen: dict[str, object]) -> None:
        assert value_from_json(int, seen["handle"]) > 0  # 0 is the default stream

    def test_empty_buffer_still_has_an_address(self, seen: dict[str, object]) -> None:
        assert seen["sizes"] == [24, 1]
        addresses = value_from_json(tuple[int, ...], seen["addresses"])
        assert 0 not in addresses
        assert len(set(addresses)) == 2

    def test_page_locked_array_may_be_empty(self, seen: dict[str, object]) -> None:
        assert seen["empty array"] == [0, 3]

    def test_copies_go_there_and_back(self, seen: dict[str, object]) -> None:
        assert seen["received"] == [[0, 1, 2], [3, 4, 5]]

    def test_time_passes_between_two_events(self, seen: dict[str, object]) -> None:
        assert value_from_json(float, seen["ms"]) > 0

    def test_copies_that_do_not_fit_are_refused(self, seen: dict[str, object]) -> None:
        assert seen["too long"] == "ValueError: array of 24 bytes, expected at most 1, the size of the buffer"
        assert seen["too long back"] == seen["too long"]
        assert seen["not contiguous"] == "ValueError: array of shape (3, 2) is not contiguous"

    def test_full_gpu_is_an_engine_error_that_says_how_much_was_wanted(self, seen: dict[str, object]) -> None:
        name = value_from_json(tuple[str, str, tuple[int, int], str], seen["device"])[0]
        assert value_from_json(str, seen["too much"]).startswith(f"EngineError: {name}: no 1073741824.0 MiB left for a buffer")

    def test_work_is_captured_on_another_stream_or_refused(self, seen: dict[str, object]) -> None:
        assert seen.get("captured elsewhere", False) is ("capture" not in seen)

    def test_work_that_cannot_be_queued_is_no_graph(self, seen: dict[str, object]) -> None:
        assert value_from_json(str, seen["failed capture"]).startswith("EngineError: ")


class TestAdapters(CudaRuntimeContract):
    @pytest.fixture
    def seen(self, steps: Steps) -> dict[str, object]:
        return steps.seen


@pytest.mark.gpu
class TestAdaptersOnTheGpu(CudaRuntimeContract):
    """With the real driver, each package in a process of its own."""

    @pytest.fixture
    def seen(self, seen_on_the_gpu: dict[str, object]) -> dict[str, object]:
        return seen_on_the_gpu


class TestFakeGpu(CudaRuntimeContract):
    @pytest.fixture
    def gpu(self) -> FakeGpu:
        return FakeGpu()

    @pytest.fixture
    def seen(self, gpu: FakeGpu) -> dict[str, object]:
        return walk(gpu, gpu.notes.append)

    def test_what_is_closed_twice_is_closed_once(self, gpu: FakeGpu, seen: dict[str, object]) -> None:
        del seen
        assert [gpu.notes.count(note) for note in ("close graph", f"free {min(gpu.memory)}")] == [1, 1]
        assert gpu.open_streams == 0


def test_primary_context_is_used_and_no_other_made(steps: Steps) -> None:
    assert "cuDevicePrimaryCtxRetain" in steps.calls["open"]
    assert "cuCtxCreate" not in steps.all_calls


def test_device_is_described(steps: Steps) -> None:
    assert steps.seen["device"] == ["NVIDIA Stub 1", "0000:65:00.0", [8, 9], "07070707-0707-0707-0707-070707070707"]


def test_stream_does_not_wait_for_the_default_one(steps: Steps) -> None:
    assert steps.calls["stream"][:2] == ["cuStreamCreate", "non-blocking"]


def test_page_locked_arrays_come_from_the_driver(steps: Steps) -> None:
    assert steps.calls["page-locked"].count("cuMemAllocHost") == 3


def test_copies_are_queued_in_order_between_two_events(steps: Steps) -> None:
    order = [call for call in steps.calls["round trip"] if call != "cuEventCreate"]
    assert order == ["cuEventRecord", "cuMemcpy", "cuMemcpy", "cuEventRecord", "cuEventSynchronize", "cuEventElapsedTime"]


def test_time_between_events_is_the_drivers(steps: Steps) -> None:
    assert steps.seen["ms"] == 0.5


def test_the_driver_does_not_see_copies_that_do_not_fit(steps: Steps) -> None:
    assert "cuMemcpy" not in steps.calls["refusals"]


def test_graph_is_captured_on_a_stream_of_its_own_then_uploaded_and_launched(steps: Steps) -> None:
    if "capture" in steps.seen:
        assert steps.seen["capture"] == "pycuda cannot capture graphs"
        assert steps.calls["capture"] == []
        return
    order = [call for call in steps.calls["capture"] if call.startswith(("cuStreamBegin", "cuStreamEnd", "cuGraph"))]
    order.remove("cuGraphDestroy")  # of the recipe, once it is instantiated
    assert order == ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", "cuGraphUpload"]
    assert steps.calls["launch"] == ["cuGraphLaunch", "cuGraphLaunch", "cuGraphExecDestroy"]


def test_work_that_cannot_be_queued_is_not_instantiated(steps: Steps) -> None:
    assert "cuGraphInstantiate" not in steps.calls["failed capture"]


def test_memory_is_given_back_once(steps: Steps) -> None:
    assert steps.calls["free"].count("cuMemFree") == 1
    assert steps.calls["free arrays"].count("cuMemFreeHost") == 1


def test_capture_broken_by_the_driver_is_an_engine_error(tmp_path: Path) -> None:
    steps = take_steps("cuda.core", tmp_path, STUB_DRIVER_FAIL="cuStreamEndCapture")
    assert "could not capture a graph" in str(steps.seen["capture"])
    assert steps.seen["received"] == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("adapter", list(ADAPTERS))
def test_machine_without_a_usable_gpu_is_an_engine_error(adapter: str, tmp_path: Path) -> None:
    steps = take_steps(adapter, tmp_path, STUB_DRIVER_FAIL="cuInit")
    assert "found no usable GPU" in str(steps.seen["open"])


def test_missing_packages_are_all_named_with_what_to_install() -> None:
    def missing(name: str) -> NoReturn:
        raise ModuleNotFoundError(f"No module named {name!r}")

    with pytest.raises(UnsupportedTargetError, match=r"one \(No module named 'one'\); two \(No module named 'two'\)") as caught:
        open_cuda({"one": lambda: missing("one"), "two": lambda: missing("two")})
    assert "[gpu]" in caught.value.fix


def test_broken_driver_is_not_taken_for_a_missing_package() -> None:
    def broken() -> None:
        raise EngineError("no GPU", fix="get one")

    with pytest.raises(EngineError, match="no GPU"):
        open_cuda({"one": broken})  # type: ignore[dict-item]  # never returns


def test_room_is_checked_in_bytes() -> None:
    check_room(np.zeros(4, dtype=np.float32), 16)
    with pytest.raises(ValueError, match="array of 16 bytes, expected at most 15"):
        check_room(np.zeros(4, dtype=np.float32), 15)
