"""What a piece of code allocates in Python and numpy; what protobuf, ONNX Runtime and LAPACK allocate by themselves is not seen."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable


def peak_bytes(run: Callable[[], object]) -> int:
    """Return the most memory that ``run`` held at once, above what was there before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        run()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
