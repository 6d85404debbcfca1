from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from engine_builder.pipeline.stage_table import KEPT_STAGES
from engine_builder.workspace.external_files import external_files
from engine_builder.workspace.workspace import FileRef, Workspace
from service.worker.stage_cache import StageCache


def as_json(ref: FileRef) -> dict[str, object]:
    return {"file": ref.file, "sha256": ref.sha256}


class CountingStage:
    """A stage that writes a file and counts how often it ran."""

    def __init__(self, workspace: Workspace, content: bytes = b"ranges", name: str = "out/ranges.bin") -> None:
        self.count = 0
        self._workspace = workspace
        self._content = content
        self._name = name

    def __call__(self) -> dict[str, object]:
        self.count += 1
        return {"ranges": as_json(self._workspace.write_bytes(self._name, self._content)), "layers": 3}


@pytest.fixture
def cache(tmp_path: Path) -> StageCache:
    return StageCache(tmp_path / "cache", "1", KEPT_STAGES)


@pytest.fixture
def make_workspace(tmp_path: Path) -> Callable[[], Workspace]:
    names = iter("abcdef")
    return lambda: Workspace(tmp_path / next(names))


def test_second_run_brings_the_files_without_computing(cache: StageCache, make_workspace: Callable[[], Workspace]) -> None:
    first, second = make_workspace(), make_workspace()
    request = {"samples": 8}
    expected = cache.run("ranges", request, first, CountingStage(first))
    stage = CountingStage(second)
    assert cache.run("ranges", request, second, stage) == expected
    assert stage.count == 0
    assert second.path("out/ranges.bin").read_bytes() == b"ranges"


def test_name_of_an_input_file_does_not_count_but_its_content_does(cache: StageCache, make_workspace: Callable[[], Workspace]) -> None:
    workspace = make_workspace()
    one, same, other = (workspace.write_bytes(name, data) for name, data in (("a", b"1"), ("b/c", b"1"), ("d", b"2")))
    keys = [cache.key("ranges", {"inputs": [as_json(ref)]}, workspace) for ref in (one, same, other)]
    assert keys[0] == keys[1]
    assert keys[0] != keys[2]


@pytest.mark.parametrize(("stage", "version", "value"), [("inspect", "1", 1), ("ranges", "2", 1), ("ranges", "1", 2)])
def test_stage_version_and_settings_are_part_of_the_key(tmp_path: Path, stage: str, version: str, value: int) -> None:
    workspace = Workspace(tmp_path / "job")
    first = StageCache(tmp_path / "cache", "1", KEPT_STAGES).key("ranges", {"value": 1}, workspace)
    assert StageCache(tmp_path / "cache", version, KEPT_STAGES).key(stage, {"value": value}, workspace) != first


def test_trials_are_never_kept(cache: StageCache, make_workspace: Callable[[], Workspace]) -> None:
    workspace = make_workspace()
    stage = CountingStage(workspace)
    for _ in range(2):
        cache.run("trial", {}, workspace, stage)
    assert stage.count == 2


def test_damaged_entry_counts_as_missing_and_is_replaced(
    cache: StageCache, make_workspace: Callable[[], Workspace], tmp_path: Path
) -> None:
    first, second, third = make_workspace(), make_workspace(), make_workspace()
    cache.run("ranges", {}, first, CountingStage(first))
    (entry,) = (tmp_path / "cache").iterdir()
    (kept,) = (path for path in entry.iterdir() if path.name != "entry.json")
    kept.unlink()
    kept.write_bytes(b"damaged")
    again = CountingStage(second)
    cache.run("ranges", {}, second, again)
    assert again.count == 1
    hit = CountingStage(third)
    cache.run("ranges", {}, third, hit)
    assert hit.count == 0


def test_damaged_description_of_an_entry_counts_as_missing(
    cache: StageCache, make_workspace: Callable[[], Workspace], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = make_workspace(), make_workspace()
    cache.run("ranges", {}, first, CountingStage(first))
    (entry,) = (tmp_path / "cache").iterdir()
    text = (entry / "entry.json").read_text()
    assert '"layers": 3' in text
    (entry / "entry.json").write_text(text.replace('"layers": 3', '"layers": 4'))
    again = CountingStage(second)
    assert cache.run("ranges", {}, second, again)["layers"] == 3
    assert again.count == 1
    assert "its content has changed" in caplog.text


def test_entry_that_is_cut_off_counts_as_missing(cache: StageCache, make_workspace: Callable[[], Workspace], tmp_path: Path) -> None:
    first, second = make_workspace(), make_workspace()
    cache.run("ranges", {}, first, CountingStage(first))
    (entry,) = (tmp_path / "cache").iterdir()
    (entry / "entry.json").write_bytes((entry / "entry.json").read_bytes()[:20])
    again = CountingStage(second)
    cache.run("ranges", {}, second, again)
    assert again.count == 1


def test_cache_that_cannot_be_written_costs_a_warning_only(
    cache: StageCache, make_workspace: Callable[[], Workspace], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = make_workspace()
    (tmp_path / "cache").rmdir()
    (tmp_path / "cache").write_text("no folder")
    assert cache.run("ranges", {}, workspace, CountingStage(workspace))["layers"] == 3
    assert "a stage result is not kept" in caplog.text


def test_result_that_takes_half_of_the_room_is_not_kept(tmp_path: Path) -> None:
    cache, workspace = StageCache(tmp_path / "cache", "1", KEPT_STAGES, max_bytes=1000), Workspace(tmp_path / "job")
    cache.run("ranges", {}, workspace, CountingStage(workspace, b"x" * 501))
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_a_killed_process_left_goes_after_a_day_and_what_is_being_written_stays(
    cache: StageCache, make_workspace: Callable[[], Workspace], tmp_path: Path
) -> None:
    for name, age in (("unfinished-old", 25 * 3600), ("unfinished-new", 60)):
        (tmp_path / "cache" / name).mkdir()
        os.utime(tmp_path / "cache" / name, (time.time() - age,) * 2)
    workspace = make_workspace()
    cache.run("ranges", {}, workspace, CountingStage(workspace))
    assert {path.name for path in (tmp_path / "cache").glob("unfinished-*")} == {"unfinished-new"}


@pytest.mark.long
def test_several_processes_share_a_cache_that_is_always_full(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from engine_builder.workspace.workspace import Workspace
from service.worker.stage_cache import StageCache
root, name = Path(sys.argv[1]), sys.argv[2]
cache = StageCache(root / "cache", "1", {"ranges"}, max_bytes=6000)
for turn in range(150):
    index = turn % 5
    workspace = Workspace(root / name / str(turn))
    def compute():
        ref = workspace.write_bytes("ranges.bin", bytes([index]) * 1000)
        return {"ranges": {"file": ref.file, "sha256": ref.sha256}, "index": index}
    result = cache.run("ranges", {"index": index}, workspace, compute)
    assert result["index"] == index
    assert workspace.path("ranges.bin").read_bytes() == bytes([index]) * 1000
"""
    names = ("a", "b", "c")
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name], stderr=subprocess.PIPE) for name in names]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    assert not list((tmp_path / "cache").glob("unfinished-*"))


def test_only_this_user_may_read_the_cache(cache: StageCache, tmp_path: Path) -> None:
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


def test_stage_that_fails_leaves_no_entry(cache: StageCache, make_workspace: Callable[[], Workspace], tmp_path: Path) -> None:
    def fail() -> dict[str, object]:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        cache.run("ranges", {}, make_workspace(), fail)
    assert list((tmp_path / "cache").iterdir()) == []


def test_oldest_entries_go_when_the_cache_is_full(tmp_path: Path) -> None:
    cache = StageCache(tmp_path / "cache", "1", KEPT_STAGES, max_bytes=2500)
    for index in range(3):
        workspace = Workspace(tmp_path / f"job{index}")
        key = cache.key("ranges", {"index": index}, workspace)
        cache.run("ranges", {"index": index}, workspace, CountingStage(workspace, bytes([index]) * 800))
        if (tmp_path / "cache" / key).exists():
            os.utime(tmp_path / "cache" / key, (index, index))
    first = CountingStage(Workspace(tmp_path / "first"))
    cache.run("ranges", {"index": 0}, Workspace(tmp_path / "first"), first)
    last = CountingStage(Workspace(tmp_path / "last"))
    cache.run("ranges", {"index": 2}, Workspace(tmp_path / "last"), last)
    assert (first.count, last.count) == (1, 0)


def save_with_external_data(folder: Path, value: float) -> Path:
    model = onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 17]> g (float[1, 64] x) => (float[1, 64] y) {y = Add(x, w)}')
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.full((1, 64), value, np.float32), "w"))
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save_model(model, folder / "m.onnx", save_as_external_data=True, location="weights/m.data", size_threshold=0)
    return folder / "m.onnx"


@pytest.fixture
def external_model(tmp_path: Path) -> Path:
    (tmp_path / "model" / "weights").mkdir(parents=True)
    return save_with_external_data(tmp_path / "model", 1.0)


def test_external_data_are_found_without_parsing(external_model: Path) -> None:
    assert external_files(external_model) == ("weights/m.data",)
    (external_model.parent / "weights" / "m.data").unlink()
    assert external_files(external_model) == ()


def test_file_that_only_mentions_a_location_has_no_external_data(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "m").mkdir()
    for name in (b"../secret", str(tmp_path / "secret").encode(), b"missing", b"\xff\xff"):
        (tmp_path / "m" / "m.onnx").write_bytes(b"\x0a\x08location\x12" + bytes([len(name)]) + name)
        assert external_files(tmp_path / "m" / "m.onnx") == ()
    (tmp_path / "m" / "empty.onnx").write_bytes(b"")
    assert external_files(tmp_path / "m" / "empty.onnx") == ()


def test_weights_outside_the_model_file_are_part_of_the_key(cache: StageCache, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "job")
    keys = []
    for value in (1.0, 2.0):
        (workspace.root / "weights").mkdir(exist_ok=True)
        save_with_external_data(workspace.root, value)
        keys.append(cache.key("inspect", as_json(workspace.adopt("m.onnx")), workspace))
        (workspace.root / "weights" / "m.data").unlink()
    assert keys[0] != keys[1]


def test_kept_model_comes_with_its_external_data(cache: StageCache, tmp_path: Path) -> None:
    first, second = Workspace(tmp_path / "a"), Workspace(tmp_path / "b")

    def prepare() -> dict[str, object]:
        (first.root / "prepared" / "weights").mkdir(parents=True)
        save_with_external_data(first.root / "prepared", 3.0)
        return {"prepared": as_json(first.adopt("prepared/m.onnx"))}

    cache.run("inspect", {}, first, prepare)
    cache.run("inspect", {}, second, lambda: pytest.fail("computed again"))
    model = onnx.load(second.path("prepared/m.onnx"))
    assert onnx.numpy_helper.to_array(model.graph.initializer[0])[0, 0] == 3.0
