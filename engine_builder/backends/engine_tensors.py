"""What goes into an engine and what comes out, as the engine itself has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape, Shape]]  # least, best and greatest shape of each input with a free axis


@dataclass(frozen=True, slots=True)
class EngineTensor:
    """An input or output of an engine as the engine itself names it."""

    name: str
    dtype: str  # numpy's name: "float32", "float16", "int64", "bool", ..., and "bfloat16"
    shape: tuple[int | None, ...]  # None: any size


@dataclass(frozen=True, slots=True)
class EngineTensors:
    """All inputs and outputs of a plan."""

    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    profiles: tuple[Profile, ...]  # optimization profiles, in the plan's order; empty where no axis is free
