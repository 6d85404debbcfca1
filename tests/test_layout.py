"""The rules of CONTRIBUTING.md about files that no linter checks."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("calibration", "engine_builder", "service")
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for folder in (*PACKAGES, "benchmarks", "examples", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
LOCKS = {name: (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8") for name in ("runtime", "build", "dev")}

MAX_LINES = 350
MAX_MODULES = 12  # of one package, its __init__.py apart
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
MAX_CASTS = 19  # in the three packages; values are read by typed readers, and a cast is for what a library does not say
# The package files that may bind a name besides their docstring, and the name.
INIT_EXCEPTIONS = {"service/__init__.py": "__version__"}


def pins(lock: str) -> set[str]:
    return {line.split()[0] for line in LOCKS[lock].splitlines() if line[:1].isalnum()}


def test_files_are_short_enough_to_read_at_once() -> None:
    lengths = {name: len(text.splitlines()) for name, text in SOURCES.items()}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_packages_are_small_enough_to_know() -> None:
    modules = Counter(str(Path(name).parent) for name in SOURCES if name.split("/")[0] in PACKAGES and not name.endswith("__init__.py"))
    assert {folder: count for folder, count in modules.items() if count > MAX_MODULES} == {}


def test_files_are_named_after_their_idea() -> None:
    assert [name for name in SOURCES if Path(name).stem in VAGUE_NAMES] == []


def test_modules_open_with_a_docstring() -> None:
    modules = {name: text for name, text in SOURCES.items() if name.split("/")[0] in PACKAGES}
    assert [name for name, text in modules.items() if ast.get_docstring(ast.parse(text)) is None] == []


def test_package_files_hold_one_docstring_line() -> None:
    offenders = []
    for name, text in SOURCES.items():
        if name.endswith("__init__.py"):
            tree = ast.parse(text)
            docstring = ast.get_docstring(tree)
            if docstring is None or "\n" in docstring or (len(tree.body) > 1 and name not in INIT_EXCEPTIONS):
                offenders.append(name)
    assert offenders == []


def test_the_name_that_users_import_is_a_list_of_names_only() -> None:
    folder = ROOT / "onnx_trt_optimizer"
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == {"__init__.py", "py.typed"}
    body = ast.parse((folder / "__init__.py").read_text(encoding="utf-8")).body
    assert {type(node) for node in body[1:]} == {ast.ImportFrom, ast.Assign}


def test_every_package_says_that_it_has_types() -> None:
    assert [folder for folder in (*PACKAGES, "onnx_trt_optimizer") if not (ROOT / folder / "py.typed").exists()] == []


def test_source_folders_are_packages() -> None:
    folders = {str(Path(name).parent) for name in SOURCES if name.split("/")[0] in PACKAGES}
    assert [folder for folder in sorted(folders) if f"{folder}/__init__.py" not in SOURCES] == []


def test_imports_are_absolute() -> None:
    relative = [
        f"{name}:{node.lineno}"
        for name, text in SOURCES.items()
        if re.search(r"^\s*from\s+\.", text, re.MULTILINE)  # most have none, and are not parsed
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


def test_modules_put_off_the_evaluation_of_annotations() -> None:
    modules = {name: text for name, text in SOURCES.items() if not name.endswith("__init__.py")}
    assert [name for name, text in modules.items() if "from __future__ import annotations" not in text] == []


def test_casts_are_few() -> None:
    casts = [
        f"{name}:{node.lineno}"
        for name, text in SOURCES.items()
        if name.split("/")[0] in PACKAGES and "cast(" in text
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"cast", "typing.cast"}
    ]
    assert len(casts) <= MAX_CASTS, casts


def test_locks_name_no_place_to_fetch_from() -> None:
    lines = [line for text in LOCKS.values() for line in text.splitlines()]
    assert [line for line in lines if line.startswith("-") or "://" in line or "file:" in line or " /" in line] == []


def test_locks_pin_and_hash_every_requirement() -> None:
    requirements = [
        line for text in LOCKS.values() for line in text.replace("\\\n", " ").splitlines() if line and not line.lstrip().startswith("#")
    ]
    assert requirements
    assert [line for line in requirements if "==" not in line or "--hash=sha256:" not in line] == []


def test_locks_agree_on_versions() -> None:
    assert pins("runtime") <= pins("dev")
    assert pins("build") <= pins("dev")


def test_what_make_runs_keeps_what_it_compiles() -> None:
    """Each server and each command of a test would compile all packages anew, which takes longer than most of them."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    rule = 'include Makefile\ntold: ; @echo "[$$PYTHONDONTWRITEBYTECODE]"\n'
    command = ["make", "--no-print-directory", "-f", "-", "told"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, input=rule, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
