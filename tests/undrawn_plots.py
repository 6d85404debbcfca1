"""Lets reports be made whose plots are painted but not written, which would take most of the time of a small job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO
from unittest import mock

from matplotlib.figure import Figure


@contextmanager
def undrawn_plots(is_drawn: bool = False) -> Iterator[None]:
    """Let every plot be an empty ``<svg>`` while the block runs, unless they are to be drawn after all."""
    if is_drawn:
        yield
    else:
        with mock.patch.object(Figure, "savefig", _write_nothing):
            yield


def _write_nothing(figure: Figure, target: IO[str], **options: object) -> None:
    target.write('<svg viewBox="0 0 1 1"></svg>')
