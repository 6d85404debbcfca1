"""How engines are built, for targets that have a builder to tell: limits, effort, and where kernel times are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_LEVEL = 3  # of TensorRT
CACHE_SUFFIX = ".timing.cache"  # of the files that keep kernel times
LEVELS = range(6)  # 0 (quick to build) to 5 (tries most)


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How an engine is built."""

    workspace_bytes: int | None = None  # scratch memory that a kernel may use; None: what the target takes for granted
    optimization_level: int = DEFAULT_LEVEL
    hardware_compatible: bool = False  # runs on any GPU since Ampere, mostly slower
    version_compatible: bool = False  # runs on later TensorRT releases of the same major version, mostly slower
    timing_caches: Path | None = None  # the folder where timing caches are kept from build to build; None keeps none
    weight_budget_bytes: int | None = None  # GPU memory for weights that can be streamed; None: all weights are on the GPU
    strip_weights: bool = False  # the plan has no weights: they are put back from the explicit model when it is opened
    build_route: str = ""  # of the builder's knobs (``records.build_route``); empty: all have their defaults

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.optimization_level not in LEVELS:
            raise ValueError(f"optimization_level is {self.optimization_level}, expected {LEVELS[0]} to {LEVELS[-1]}")
        if self.weight_budget_bytes is not None and self.weight_budget_bytes < 0:
            raise ValueError(f"weight_budget_bytes is {self.weight_budget_bytes}, expected at least 0")
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise ValueError(f"workspace_bytes is {self.workspace_bytes}, expected at least 1")
