"""How the validation samples are run where they are sequences of steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Sequences of steps for a model with a state.

    The samples hold every step, the sequences one after another, and the state that each sequence starts with; then an engine takes what
    it gave itself.
    """

    states: Mapping[str, int]  # an input -> the output, by its place in the model, that it takes of the step before
    lengths: tuple[int, ...]  # steps of each sequence
    is_judged_last: bool  # a sequence is judged by its last step, since labels are of whole sequences; else by all of its steps

    def __post_init__(self) -> None:
        """Refuse what is no loop."""
        if not self.states or not self.lengths or min(self.lengths) < 1:
            raise ValueError(f"expected a state and sequences of at least one step, found {self.states} and {self.lengths}")

    @property
    def steps(self) -> NDArray[np.int64]:
        """Steps of each sequence, (sequences,)."""
        return np.asarray(self.lengths, dtype=np.int64)
