from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine_builder.errors import EngineError
from engine_builder.workspace.workspace import FileRef, StageContext, Workspace, file_refs


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "job")


def files_below(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../a", "a/../../b", "a\0b", "..", "a\\b"])
def test_names_that_could_leave_the_workspace_are_refused(workspace: Workspace, name: str) -> None:
    with pytest.raises(ValueError, match="file name"):
        FileRef(name, "0" * 64)
    with pytest.raises(ValueError, match="file name"):
        workspace.path(name)


def test_link_out_of_the_workspace_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (workspace.root / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="leads out"):
        workspace.path("link")


@pytest.mark.parametrize("digest", ["", "0" * 63, "g" * 64, "A" * 64])
def test_reference_refuses_what_is_no_digest(digest: str) -> None:
    with pytest.raises(ValueError, match="sha256 of a"):
        FileRef("a", digest)


def test_written_bytes_are_referred_to_by_their_content(workspace: Workspace) -> None:
    ref = workspace.write_bytes("folder/a.bin", b"hello")
    assert ref == FileRef("folder/a.bin", hashlib.sha256(b"hello").hexdigest())
    assert workspace.path(ref).read_bytes() == b"hello"
    assert workspace.adopt("folder/a.bin") == ref


def test_equal_json_values_give_equal_bytes(workspace: Workspace) -> None:
    first = workspace.write_json("a.json", {"b": 1, "a": [0.1, None]})
    second = workspace.write_json("b.json", {"a": [0.1, None], "b": 1})
    assert first.sha256 == second.sha256
    assert workspace.read_json(first) == {"b": 1, "a": [0.1, None]}


def test_json_without_a_form_leaves_no_file(workspace: Workspace) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        workspace.write_json("a.json", math.nan)
    assert files_below(workspace.root) == set()


def test_arrays_of_any_name_and_type_come_back_equal(workspace: Workspace) -> None:
    arrays = {
        "name": np.arange(6, dtype=np.float32).reshape(2, 3),
        "file": np.array(True),
        "self": np.zeros((0, 4), dtype=np.int64),
        "conv/weight:0": np.array([1.5], dtype=np.float16),
        "text": np.array(["a", "bc"]),
    }
    found = workspace.read_arrays(workspace.write_arrays("a.npz", **arrays))
    assert list(found) == list(arrays)
    for key, array in arrays.items():
        np.testing.assert_array_equal(found[key], array)
        assert found[key].dtype == array.dtype


def test_equal_arrays_give_equal_bytes(workspace: Workspace) -> None:
    refs = [workspace.write_arrays(name, x=np.arange(3), y=np.ones(2)) for name in ("a.npz", "b.npz")]
    assert refs[0].sha256 == refs[1].sha256


def test_arrays_of_objects_are_refused_before_a_file_is_made(workspace: Workspace) -> None:
    with pytest.raises(TypeError, match="'x': dtype object"):
        workspace.write_arrays("a.npz", x=np.array([{}], dtype=object))
    assert files_below(workspace.root) == set()


def test_changed_content_is_found_on_reading(workspace: Workspace) -> None:
    ref = workspace.write_json("a.json", 1)
    workspace.write_json("a.json", 2)
    with pytest.raises(EngineError, match=r"a\.json.*found content"):
        workspace.read_json(ref)


def test_failed_write_keeps_the_old_file_and_leaves_no_other(workspace: Workspace, tmp_path: Path) -> None:
    workspace.write_bytes("a", b"old")
    with pytest.raises(FileNotFoundError):
        workspace.copy(tmp_path / "missing", "a")
    assert files_below(workspace.root) == {"a"}
    assert workspace.path("a").read_bytes() == b"old"
    assert list(workspace.root.iterdir()) == [workspace.root / "a"]


def test_temporaries_go_to_the_folder_given_for_them(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    workspace = Workspace(tmp_path, temporary=tmp_path / "scratch")
    workspace.write_bytes("a/b", b"x")
    assert list((tmp_path / "scratch").iterdir()) == []
    assert workspace.path("a/b").read_bytes() == b"x"


def test_link_shares_the_bytes_and_copy_does_not(workspace: Workspace, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    linked, copied = workspace.link(source, "linked"), workspace.copy(source, "copied")
    assert linked.sha256 == copied.sha256
    assert workspace.path(linked).samefile(source)
    assert not workspace.path(copied).samefile(source)


def test_linking_a_file_over_itself_leaves_nothing_else(workspace: Workspace, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    workspace.link(source, "a")
    workspace.link(source, "a")
    assert [path.name for path in workspace.root.iterdir()] == ["a"]


def test_replacing_a_linked_file_does_not_touch_its_source(workspace: Workspace, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"the user's model")
    workspace.link(source, "model.onnx")
    workspace.write_bytes("model.onnx", b"another")
    assert source.read_bytes() == b"the user's model"


def test_scratch_of_killed_stages_is_removed_and_nothing_else(workspace: Workspace) -> None:
    (workspace.root / "scratch-abc" / "deep").mkdir(parents=True)
    (workspace.root / "scratch-abc" / "deep" / "x").write_bytes(b"x")
    (workspace.root / "scratch-file").write_bytes(b"x")
    workspace.write_bytes("kept", b"x")
    workspace.remove_scratch()
    assert [path.name for path in workspace.root.iterdir()] == ["kept"]


def test_file_references_are_found_at_any_depth() -> None:
    first, second = FileRef("a", "0" * 64), FileRef("b", "1" * 64)
    as_json: Callable[[FileRef], dict[str, str]] = lambda ref: {"file": ref.file, "sha256": ref.sha256}  # noqa: E731 - one expression
    assert file_refs({"x": [as_json(first), {"y": as_json(second)}], "z": {"file": "no digest"}}) == (first, second)


def test_workspace_is_given_as_an_absolute_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Workspace(Path("relative")).root == tmp_path / "relative"


def test_a_part_of_a_stage_covers_its_part_of_the_progress(tmp_path: Path) -> None:
    seen: list[tuple[float, str]] = []
    whole = StageContext(Workspace(tmp_path), tmp_path, lambda fraction, message: seen.append((fraction, message)))
    part = whole.part(0.2, 0.6)
    for fraction in (0.0, 0.5, 1.0):
        part.progress(fraction, "x")
    part.part(0.5, 1.0).progress(0.0, "nested")
    assert [share for share, _ in seen] == pytest.approx([0.2, 0.4, 0.6, 0.4])
    assert seen[-1][1] == "nested"
    assert (part.workspace, part.scratch) == (whole.workspace, whole.scratch)
