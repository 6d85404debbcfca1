from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from engine_builder.errors import StageCancelledError
from engine_builder.workspace.workspace import Workspace
from service.jobs.branches.shared_stages import FOLDER, SharedStages

REQUEST: Mapping[str, object] = {"of": "a model"}


class Branch:
    """A branch of the job in ``folder``, which counts what it computed."""

    def __init__(self, folder: Path, name: str, is_run: Callable[[str], bool] = lambda other: True) -> None:
        self.workspace = Workspace(folder / name)
        self.shared = SharedStages(folder / "job", "1", {"ranges"}, name, is_run)
        self.computed = 0

    def run(self, stage: str = "ranges", request: Mapping[str, object] = REQUEST, fails: bool = False) -> Mapping[str, object]:
        def compute() -> Mapping[str, object]:
            self.computed += 1
            if fails:
                raise ValueError("it failed")
            ref = self.workspace.write_bytes("table", b"figures")
            return {"table": {"file": ref.file, "sha256": ref.sha256}}

        return self.shared.run(stage, request, self.workspace, compute, lambda: False)


def test_what_one_branch_found_another_one_has_with_its_files(tmp_path: Path) -> None:
    first, second = Branch(tmp_path, "first"), Branch(tmp_path, "second")
    assert first.run() == second.run()
    assert (first.computed, second.computed) == (1, 0)
    assert (second.workspace.root / "table").read_bytes() == b"figures"


def test_another_request_and_a_stage_that_is_not_shared_are_run(tmp_path: Path) -> None:
    first, second = Branch(tmp_path, "first"), Branch(tmp_path, "second")
    first.run()
    second.run(request={"of": "a model for another type"})
    second.run("trial")
    assert second.computed == 2


def test_a_branch_waits_for_the_one_that_is_at_it(tmp_path: Path) -> None:
    first, second = Branch(tmp_path, "first"), Branch(tmp_path, "second")
    begun, go_on = threading.Event(), threading.Event()

    def compute() -> Mapping[str, object]:
        begun.set()
        go_on.wait()
        return {"found": 1}

    thread = threading.Thread(target=lambda: first.shared.run("ranges", REQUEST, first.workspace, compute, lambda: False))
    thread.start()
    begun.wait()
    looks = iter([False, True])

    def should_end() -> bool:
        is_last = next(looks)
        if is_last:
            go_on.set()
            thread.join()
        return False

    assert second.shared.run("ranges", REQUEST, second.workspace, lambda: {"found": 2}, should_end) == {"found": 1}


def test_a_branch_that_is_cancelled_as_it_waits_ends(tmp_path: Path) -> None:
    claim_of(tmp_path, "first")
    second = Branch(tmp_path, "second")
    with pytest.raises(StageCancelledError):
        second.shared.run("ranges", REQUEST, second.workspace, dict, lambda: True)


def test_what_a_dead_process_claimed_is_run_by_who_comes_next(tmp_path: Path) -> None:
    claim_of(tmp_path, "first")
    second = Branch(tmp_path, "second", is_run=lambda other: other != "first")
    second.run()
    assert second.computed == 1


def test_a_branch_goes_on_with_what_it_had_claimed_itself(tmp_path: Path) -> None:
    claim_of(tmp_path, "first")
    first = Branch(tmp_path, "first")
    first.run()
    assert first.computed == 1


def test_a_failure_is_not_shared(tmp_path: Path) -> None:
    first, second = Branch(tmp_path, "first"), Branch(tmp_path, "second")
    with pytest.raises(ValueError, match="it failed"):
        first.run(fails=True)
    second.run()
    assert second.computed == 1
    assert not list((tmp_path / "job" / FOLDER).glob("*.claim"))


def claim_of(folder: Path, branch: str) -> None:
    """Leave the claim of a branch whose process was killed."""
    made = Branch(folder, branch)
    key = made.shared._kept.key("ranges", REQUEST, made.workspace)
    (folder / "job" / FOLDER / f"{key}.claim").write_text(branch)
