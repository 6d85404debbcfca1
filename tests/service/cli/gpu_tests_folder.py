"""A folder of tests that are marked gpu and run anywhere."""

from __future__ import annotations

from pathlib import Path

HEAD = "import os, signal, time\n\nimport pytest\n\npytestmark = pytest.mark.gpu\n\n"
_CONFIG = "[tool.pytest.ini_options]\nmarkers = ['gpu: needs a GPU']\n"


def gpu_tests_folder(place: Path, *bodies: str) -> Path:
    """Return a folder of tests with one file, whose tests have these bodies."""
    (place / "pyproject.toml").write_text(_CONFIG)
    folder = place / "tests"
    folder.mkdir()
    names = ["on_a_gpu", *(f"number_{index}" for index in range(2, len(bodies) + 1))]
    text = "".join(f"def test_{name}():\n    {body}\n\n" for name, body in zip(names, bodies, strict=True))
    (folder / "test_one.py").write_text(HEAD + text)
    return folder
