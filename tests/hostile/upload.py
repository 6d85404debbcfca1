"""One hostile upload of the corpus."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass


class Ends(enum.StrEnum):
    """How a request with it has to end."""

    REFUSED = "refused"  # at once, with a 4xx
    FAILS = "fails"  # refused, or a job that fails in its first stage by the input's fault
    HARMLESS = "harmless"  # refused, or a job of any outcome, which is cancelled after its first stage


@dataclass(frozen=True)
class Upload:
    """A hostile file in the place of a sound one.

    Attributes:
        name: Of the case.
        role: ``model``, ``calibration`` or ``config``.
        content: Makes the bytes.
        ends: How the request ends.
        says: Words that the message has to hold.
    """

    name: str
    role: str
    content: Callable[[], bytes]
    ends: Ends = Ends.REFUSED
    says: str = ""
