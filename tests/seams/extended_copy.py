"""A copy of the program with a file and a row more: what somebody who extends it would write, and nothing else.

Nothing is patched: the row is a line in the source of the table, and whole jobs run in a process of their own that imports the copy.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("calibration", "engine_builder", "service", "tests")
_CALL = """
import importlib, json, pathlib, sys, calibration
copy, module, function, folder = map(str, sys.argv[1:])
assert pathlib.Path(calibration.__file__).is_relative_to(copy), calibration.__file__
found = getattr(importlib.import_module(module), function)(pathlib.Path(folder))
print(json.dumps(found))
"""


def extended_copy(folder: Path, file: str, text: str, table: str, rows: Mapping[str, str]) -> Path:
    """Return the root of a copy of the program with one more file and more lines in one table.

    Args:
        folder: An empty folder to copy to.
        file: The new file, relative to the root.
        text: Its content.
        table: The file of the table, relative to the root.
        rows: What to write before a line of the table, by the beginning of that line; each line must be there once.
    """
    for name in FOLDERS:
        # Compiled files too: they keep the copy's start short. Not those that another process is just writing, under a name of its own.
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.pyc.*"))
    assert not (folder / file).exists()
    (folder / file).write_text(text, encoding="utf-8")
    lines = (folder / table).read_text(encoding="utf-8").splitlines(keepends=True)
    for start, row in rows.items():
        (place,) = (index for index, line in enumerate(lines) if line.startswith(start))
        lines.insert(place, row)
    (folder / table).write_text("".join(lines), encoding="utf-8")
    return folder


def call(copy: Path, function: Callable[[Path], object], folder: Path) -> object:
    """Return what a function of a test module returns in a process that imports the copy, through JSON.

    Args:
        copy: Root of the copy.
        function: Takes an empty folder to work in.
        folder: That folder.
    """
    folder.mkdir()
    arguments = [str(copy), function.__module__, function.__name__, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run(
        [sys.executable, "-c", _CALL, *arguments], cwd=copy, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
