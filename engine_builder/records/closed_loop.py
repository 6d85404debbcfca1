"""How the validation samples are run where they are sequences of steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from calibration.sequences.caches import Caches


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Sequences of steps for a model with a state.

    The samples hold every step, the sequences one after another, and the state that each sequence starts with; then an engine takes what
    it gave itself.
    """

    states: Mapping[str, int]  # an input -> the output, by its place in the model, that it takes of the step before
    lengths: tuple[int, ...]  # steps of each sequence
    is_judged_last: bool  # a sequence is judged by its last step, since labels are of whole sequences; else by all of its steps
    caches: Caches = field(default_factory=Caches)  # which of the states grow, and what follows from them

    def __post_init__(self) -> None:
        """Refuse what is no loop."""
        if not self.states or not self.lengths or min(self.lengths) < 1:
            raise ValueError(f"expected a state and sequences of at least one step, found {self.states} and {self.lengths}")

    @property
    def growing(self) -> frozenset[int]:
        """The outputs, by their place in the model, that have another size at each step."""
        return frozenset(self.states[name] for name in self.caches.axes)

    @property
    def steps(self) -> NDArray[np.int64]:
        """Steps of each sequence, (sequences,)."""
        return np.asarray(self.lengths, dtype=np.int64)
