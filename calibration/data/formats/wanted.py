"""What a reader of samples is told, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from calibration.data.formats.preprocess import Preprocess, TokenOptions

if TYPE_CHECKING:
    from calibration.onnx_model.model_io import TensorSpec  # loads onnx, which the commands that only name the formats do without

Array: TypeAlias = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the model takes, and what the user says of the samples."""

    inputs: tuple[TensorSpec, ...]
    preprocess: Preprocess = field(default_factory=Preprocess)
    tokens: TokenOptions = field(default_factory=TokenOptions)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the model's inputs, in its order."""
        return tuple(spec.name for spec in self.inputs)

    @property
    def label_name(self) -> str:
        """What the array of labels is called: in underscores where the model has an input of that name."""
        return "__labels__" if "labels" in self.names else "labels"


@dataclass(frozen=True, slots=True)
class Found:
    """What a file of samples holds."""

    arrays: Mapping[str, Array]  # by name, the first axis counting samples
    classes: tuple[str, ...] = ()  # of labels that came as names, in the order of their indices
    are_classes_stated: bool = False  # by the user; else they are the names that occur
    notes: tuple[str, ...] = ()  # for the user
