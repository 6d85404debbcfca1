"""Makes virtual environments for what a benchmark compares with or exports from, apart from the project's own environment."""

from __future__ import annotations

import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path

INSTALL_SECONDS = 1200.0


class NotInstalledError(Exception):
    """Packages could not be had; the message says which and what pip said."""


def environment_with(folder: Path, packages: Sequence[str], alone: Sequence[str] = ()) -> Path:
    """Return the interpreter of a virtual environment that has the packages, as pip finds them.

    Args:
        folder: Where the environment is made. One that an earlier call finished with the same packages is taken as it is.
        packages: Requirements, as pip takes them.
        alone: More of them, to be had without what they ask for themselves.

    Raises:
        NotInstalledError: pip could not install them.
    """
    python, finished = folder / "bin" / "python", folder / "packages.txt"
    wanted = "\n".join((*packages, *alone))
    if finished.exists() and finished.read_text(encoding="utf-8") == wanted:
        return python
    venv.create(folder, clear=True, with_pip=True)
    _install(python, packages)
    if alone:
        _install(python, alone, "--no-deps")
    finished.write_text(wanted, encoding="utf-8")
    return python


def _install(python: Path, packages: Sequence[str], *options: str) -> None:
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", *options, *packages]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.CalledProcessError as exc:
        errors = [line for line in exc.stderr.splitlines() if line.startswith("ERROR")] or exc.stderr.splitlines()[-1:]
        raise NotInstalledError(f"pip could not install {', '.join(packages)}: {' '.join(errors)}") from exc
    except subprocess.TimeoutExpired as exc:
        raise NotInstalledError(f"pip did not install {', '.join(packages)} within {INSTALL_SECONDS:.0f} s") from exc
