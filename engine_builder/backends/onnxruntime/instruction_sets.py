"""Which of the instruction sets that decide how fast integers are this machine's processor has."""

from __future__ import annotations

from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
# As Linux names them, and as people do; the slow ones first.
_NAMES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX-512 VNNI",
    "amx_int8": "AMX",
    "asimddp": "dot products",
    "i8mm": "I8MM",
    "sve": "SVE",
}


def instruction_sets(cpuinfo: Path = _CPUINFO) -> tuple[str, ...]:
    """Return the names of those that the first processor has; nothing where the system does not say.

    Args:
        cpuinfo: Linux's list of processors.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return tuple(name for flag, name in _NAMES.items() if flag in flags)
