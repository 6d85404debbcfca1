"""Compiles stub_driver.c into the libcuda.so.1 of a folder, with empty functions for whatever else a package links to."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("stub_driver.c")
COMPILER = shutil.which("gcc") or shutil.which("cc")
NO_COMPILER = "no C compiler (gcc or cc) on this machine to make stub libraries with"
_NOT_SUPPORTED = 801  # CUDA_ERROR_NOT_SUPPORTED


def compile_library(source: str, target: Path, *libraries: str) -> None:
    """Compile C text into a shared library whose soname is its file name."""
    target.write_bytes(_compiled(source, target.name, libraries))


def build_driver(folder: Path, linked: Sequence[Path] = ()) -> Path:
    """Return the folder after writing libcuda.so.1 into it.

    Args:
        folder: Where to.
        linked: Extension modules that link to the driver by name; what the stub lacks of those names answers "not supported".
    """
    source = SOURCE.read_text(encoding="utf-8")
    wanted = {name for module in linked for name in undefined_symbols(module) if name.startswith("cu")}
    lacking = sorted(name for name in wanted if not re.search(rf"\b{name}\(", source))
    source += "\n".join(f"status {name}(void) {{ return {_NOT_SUPPORTED}; }}" for name in lacking) + "\n"
    compile_library(source, folder / "libcuda.so.1", "-ldl")
    return folder


def undefined_symbols(module: Path) -> set[str]:
    """Return the names that a shared library expects others to have."""
    listed = subprocess.run(["nm", "-D", "--undefined-only", str(module)], text=True, check=True, capture_output=True).stdout
    return {line.split()[-1].split("@")[0] for line in listed.splitlines() if line.strip()}


@functools.cache  # many tests want the same library, and the compiler takes longer than they do
def _compiled(source: str, soname: str, libraries: tuple[str, ...]) -> bytes:
    assert COMPILER is not None, NO_COMPILER
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / soname
        command = [COMPILER, "-shared", "-fPIC", "-w", "-x", "c", "-", f"-Wl,-soname,{soname}", "-o", str(target), *libraries]
        subprocess.run(command, input=source, text=True, check=True, capture_output=True)
        return target.read_bytes()
