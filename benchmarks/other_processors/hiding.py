"""Makes a command line that runs another one with instruction sets hidden from all its processes."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

_SOURCE = Path(__file__).with_name("hide.c")
_CPUINFO = Path("/proc/cpuinfo")
# Flags of /proc/cpuinfo by their beginnings: the same that hide.c takes out of CPUID's answers.
_NEWER = ("avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_", "avx10")
_AVX512 = ("avx512",)
# A private mount namespace in which the loader loads the library before every program, whatever its environment says.
_SCRIPT = """
set -eu
folder=$1; shift
mount -t tmpfs none "$folder/room"
mkdir "$folder/room/upper" "$folder/room/work"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$folder/room/upper,workdir=$folder/room/work" /etc
echo "$folder/hide.so" >> /etc/ld.so.preload
mount --bind "$folder/cpuinfo" /proc/cpuinfo
exec "$@"
"""


class Hidden(StrEnum):
    """What the processes do not find."""

    VNNI = "vnni"  # as on Skylake servers: AVX-512, whose int8 kernels saturate
    AVX512 = "avx512"  # as on Haswell: AVX2, whose int8 kernels saturate


def hindrance() -> str | None:
    """Return why nothing can be hidden here, None where it can."""
    if platform.machine() != "x86_64":
        return f"instruction sets can be hidden on x86-64 alone, and this is {platform.machine()}"
    if "cpuid_fault" not in _flags(_CPUINFO.read_text(encoding="utf-8", errors="replace")):
        return "this processor, or what it is virtualized by, cannot make CPUID fault (no cpuid_fault in /proc/cpuinfo)"
    if os.geteuid() != 0:
        return "instruction sets can be hidden by root alone, in a mount namespace"
    if shutil.which("unshare") is None:
        return "unshare is not installed"
    if shutil.which("cc") is None:
        return "no C compiler"
    found = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True, check=False)
    return None if found.returncode == 0 else f"no mount namespace: {found.stderr.strip()}"


def hiding(hidden: Hidden, command: Sequence[str], folder: Path) -> list[str]:
    """Return the command line that runs ``command`` with instruction sets hidden from it and from every process that it starts.

    Args:
        hidden: What is not found.
        command: The program and its arguments.
        folder: An empty folder for what this needs; it must last as long as the command.

    Raises:
        subprocess.CalledProcessError: The library does not compile.
    """
    options = ["-DHIDE_AVX512"] if hidden is Hidden.AVX512 else []
    library = folder / "hide.so"
    subprocess.run(["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", *options, "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    folder.chmod(0o755)  # children that are no longer root load the library too
    (folder / "room").mkdir()
    (folder / "cpuinfo").write_text(without(hidden, _CPUINFO.read_text(encoding="utf-8", errors="replace")), encoding="utf-8")
    return ["unshare", "--mount", "sh", "-c", _SCRIPT, "sh", str(folder), *command]


def without(hidden: Hidden, cpuinfo: str) -> str:
    """Return the text of ``/proc/cpuinfo`` without the flags of what is hidden."""
    beginnings = _NEWER + (_AVX512 if hidden is Hidden.AVX512 else ())
    return "".join(_line_without(line, beginnings) for line in cpuinfo.splitlines(keepends=True))


def _line_without(line: str, beginnings: tuple[str, ...]) -> str:
    name, colon, values = line.partition(":")
    if name.strip() != "flags":
        return line
    return f"{name}{colon} {' '.join(flag for flag in values.split() if not flag.startswith(beginnings))}\n"


def _flags(cpuinfo: str) -> set[str]:
    return {flag for line in cpuinfo.splitlines() if line.startswith("flags") for flag in line.partition(":")[2].split()}
