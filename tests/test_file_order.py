from __future__ import annotations

from pathlib import Path

from tests.file_order import in_order


def test_files_near_the_top_come_first_and_those_that_wait_take_turns_with_the_others() -> None:
    names = [
        "t/a/b/deep.py",
        "t/distributed/x.py",
        "t/distributed/y.py",
        "t/faults/z.py",
        "t/one.py",
        "t/two.py",
        "t/three.py",
        "t/a/four.py",
    ]
    order = [path.stem for path in in_order(map(Path, names))]
    assert order == ["x", "one", "two", "y", "three", "four", "z", "deep"]


def test_each_file_comes_once() -> None:
    files = [Path("t/one.py"), Path("t/distributed/x.py")]
    assert sorted(in_order(files * 3)) == sorted(files)
