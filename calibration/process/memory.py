"""Gives memory back: the C library keeps what was freed for later, and a stage's peak is what is kept and what it uses."""

from __future__ import annotations

import ctypes
import gc
import sys

TRIM_BYTES = 1 << 20  # a session made from more than this leaves enough behind to be worth a return of free memory

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of glibc's mallopt
_WORTH_COLLECTING_BYTES = 8 << 20
_LARGE_BYTES = 2 << 20  # blocks from this size on go back to the system when they are freed; most are opened and read once


def return_free_memory() -> None:
    """Give freed memory that the C library keeps back to the system, where it is glibc: opening a session frees several times its size."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def return_dropped_models(size_bytes: int) -> None:
    """Give back the memory of models that were let go of: onnx_ir's graphs are circles of objects and hold weights until collected.

    Args:
        size_bytes: Of one such model; for a small one nothing is done, since collecting takes a tenth of a second.
    """
    if size_bytes < _WORTH_COLLECTING_BYTES:
        return
    gc.collect()
    return_free_memory()


def set_start_up_apart() -> None:
    """Look no more for garbage among the objects that there are now; called once, when a process that stays has started.

    Python looks through all objects only after the new ones that lasted are a quarter of those. Some hundred thousand of a start would keep
    the circles of objects of a hundred jobs waiting, and each look stops all threads for a tenth of a second.
    https://docs.python.org/3/library/gc.html#gc.freeze
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # which counts what is left, of which there is next to nothing


def keep_little_free_memory() -> None:
    """Have the C library, where it is glibc, return large blocks at once and give all threads one heap, from now on.

    By itself it learns to keep blocks of up to 32 MB after the first is freed, in a heap of each thread's own. For work that allocates
    large blocks over and over outside ONNX Runtime's arena this costs time: what times engines is better without.
    """
    if sys.platform == "linux":
        adjust = getattr(ctypes.CDLL(None), "mallopt", None)
        if adjust is not None:
            for option, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _LARGE_BYTES), (_TRIM_THRESHOLD, 4 * _LARGE_BYTES)):
                adjust(option, value)
