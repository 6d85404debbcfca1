"""What came of building the plan that ships without its weights."""

from __future__ import annotations

from dataclasses import dataclass

from engine_builder.timing import RelativeLatency
from engine_builder.workspace.workspace import FileRef


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A file that the weights are put back from."""

    name: str  # beside the plan
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class StrippedPlan:
    """The stripped plan beside the whole one. Where it was not even built or run, only the first two fields are known."""

    whole_bytes: int  # of the whole plan
    why_not: str | None  # why the whole plan ships after all; None: the stripped one ships
    size_bytes: int | None = None
    weights: tuple[WeightsFile, ...] = ()  # the explicit model first, then its external data
    load_seconds: float | None = None  # of opening the plan and putting its weights back
    relative: RelativeLatency | None = None  # with its weights put back, to the whole plan, by the rounds of one timing
    accuracy: float | None = None  # mean score on the samples of the verdict
    layers: FileRef | None = None  # what the runtime says of its layers, where it says anything

    @property
    def ships(self) -> bool:
        """Whether it is what the user gets."""
        return self.why_not is None

    @property
    def shipped_bytes(self) -> int:
        """Size of the plan that ships."""
        return self.whole_bytes if self.size_bytes is None or not self.ships else self.size_bytes
