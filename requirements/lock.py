"""Writes the hashed lock files beside it from pyproject.toml; run by `make lock` in an environment that holds pip-tools."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
OPTIONS = (
    "--quiet",
    "--generate-hashes",
    "--strip-extras",
    "--allow-unsafe",
    "--no-header",
    # A lock names versions and hashes; where to fetch them from is the installing machine's business.
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-emit-trusted-host",
    "--no-emit-options",
    "--annotation-style=line",
)


def main() -> None:
    """Write runtime.txt (the service), s3.txt and rtx.txt (an extra too), build.txt (an editable install) and dev.txt (all and the checks).

    They have equal versions.
    """
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())
    runtime = project["project"]["dependencies"]
    groups = project["dependency-groups"]
    _compile("dev", [*runtime, *groups["dev"], *groups["build"]])
    _compile("runtime", runtime, constraints=HERE / "dev.txt")
    _compile("s3", [*runtime, *project["project"]["optional-dependencies"]["s3"]], constraints=HERE / "dev.txt")
    _compile("rtx", [*runtime, *project["project"]["optional-dependencies"]["rtx"]], constraints=HERE / "dev.txt")
    _compile("build", groups["build"], constraints=HERE / "dev.txt")


def _compile(name: str, requirements: list[str], constraints: Path | None = None) -> None:
    lock = HERE / f"{name}.txt"
    command = [sys.executable, "-m", "piptools", "compile", *OPTIONS, *sys.argv[1:], "-o", lock.name, f"{name}.in"]
    # In a folder of its own, so that the comments name no path of this machine.
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / f"{name}.in").write_text("\n".join(requirements) + "\n")
        if lock.exists():
            shutil.copy(lock, folder)  # versions stay unless asked otherwise (--upgrade)
        if constraints is not None:
            shutil.copy(constraints, folder)
            command += ["-c", constraints.name]
        subprocess.run(command, check=True, cwd=folder)
        shutil.copy(folder / lock.name, lock)


if __name__ == "__main__":
    main()
