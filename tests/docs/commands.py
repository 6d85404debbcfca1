"""Checks a command of the pages without running it: that all it names is there."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import itertools
import re
import shlex
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

from service.__main__ import main
from tests.docs.pages import ROOT

HARMLESS = {"cat", "cd", "cp", "curl", "echo", "export", "git", "ls", "pg_dump", "psql"}  # tools of the system that name nothing of ours


def commands(text: str) -> list[list[str]]:
    """Return the words of every simple command of a shell script, comments and assignments in front left out."""
    found: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("();<>|&"):
                found += [words] if words else []
                words = []
            elif words or not re.fullmatch(r"[A-Z_]+=.*", word):
                words.append(word)
    return found


def problem(words: Sequence[str]) -> str | None:
    """Return what a command names that is not there; None if all is."""
    program = Path(words[0]).name
    if program in HARMLESS:
        return None
    rule = _RULES.get(program)
    return rule(words[1:]) if rule else f"no rule for {program!r}"


def _make(words: Sequence[str]) -> str | None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    return _missing("target of make", [word for word in words if "=" not in word], targets)


def _ours(words: Sequence[str]) -> str | None:
    command = list(itertools.takewhile(lambda word: not word.startswith("-"), words))[:2]
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown), contextlib.suppress(SystemExit):
        main([*command, "--help"])
    if "usage:" not in shown.getvalue():
        return f"no command {command[0]!r}"
    return _missing("option", _options(words), set(re.findall(r"--[a-z-]+", shown.getvalue())))


def _python(words: Sequence[str]) -> str | None:
    if words[:1] != ["-m"]:
        return _missing("file", words[:1], {word for word in words if (ROOT / word).is_file()})
    if words[1] == "pytest":
        return _missing("file", [word for word in words[2:] if "/" in word], {word for word in words if (ROOT / word).exists()})
    spec = importlib.util.find_spec(words[1])
    if spec is None or spec.origin is None:
        return f"no module {words[1]!r}"
    return _missing(
        "option", _options(words), set(re.findall(r'"(--[a-z0-9-]+)"', _program(Path(spec.origin)).read_text(encoding="utf-8")))
    )


def _docker(words: Sequence[str]) -> str | None:
    stages = re.findall(r"^FROM .* AS (\S+)$", (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    given = dict(itertools.pairwise(words))
    named = [given["--target"]] if "--target" in given else []
    named += [word.partition(":")[2] for word in words if word.startswith("onnx-trt-optimizer:")]
    files = [given["-f"]] if "-f" in given else []
    return _missing("stage", named, set(stages)) or _missing("file", files, {name for name in files if (ROOT / name).is_file()})


def _pip(words: Sequence[str]) -> str | None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = [name for word in words for group in re.findall(r"^\.\[(.*)\]$", word) for name in group.split(",")]
    return _missing("extra", named, set(extras))


def _options(words: Sequence[str]) -> list[str]:
    return [word.partition("=")[0] for word in words if word.startswith("--")]


def _missing(kind: str, named: Sequence[str], known: set[str]) -> str | None:
    missing = [name for name in named if name not in known]
    return f"no {kind} {missing[0]!r}" if missing else None


_RULES: dict[str, Callable[[Sequence[str]], str | None]] = {
    "make": _make,
    "onnx-trt-optimizer": _ours,
    "python": _python,
    "docker": _docker,
    "pip": _pip,
}


def _program(origin: Path) -> Path:
    """Return the file that ``python -m`` runs: that of a package is its ``__main__.py``."""
    return origin.with_name("__main__.py") if origin.name == "__init__.py" else origin
