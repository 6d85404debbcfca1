"""What a user may ask of the builder of TensorRT's engines."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from calibration.codec import json_from_value
from calibration.errors import InvalidConfigError


class BuildRoutes(enum.StrEnum):
    """Which combinations of the builder's knobs are tried on the leading engine."""

    OFF = "off"
    FAST = "fast"  # one knob at a time
    MIXED = "mixed"  # then the product of those that helped


@dataclass(frozen=True, slots=True)
class BatchProfile:
    """Samples a call of one optimization profile: the plan takes min to max, with kernels chosen for opt."""

    min: int = field(metadata={"minimum": 1, "maximum": 65536, "description": "Fewest samples in a call."})
    opt: int = field(metadata={"minimum": 1, "maximum": 65536, "description": "The number of samples that kernels are chosen for."})
    max: int = field(metadata={"minimum": 1, "maximum": 65536, "description": "Most samples in a call."})

    def __post_init__(self) -> None:
        """Refuse sizes out of order."""
        if not self.min <= self.opt <= self.max:
            raise InvalidConfigError(
                f"found min {self.min}, opt {self.opt}, max {self.max}, expected min <= opt <= max", fix="Put the sizes in order."
            )


@dataclass(frozen=True, slots=True)
class BuilderConfig:
    """How engines are built, by targets that have a builder.

    Trials are built at the final level unless told otherwise: at a lower one the builder tries fewer kernels, not the same ones for less
    time, so that the order of two engines may differ from that of the engines that ship.
    """

    workspace_mb: int | None = field(
        default=None,
        metadata={
            "minimum": 1,
            "maximum": 1 << 20,
            "description": "Most scratch memory that a kernel may use, in MiB; by default all of the GPU's on tensorrt, a quarter of it on "
            "tensorrt-rtx.",
        },
    )
    optimization_level: int = field(
        default=3,
        metadata={"minimum": 0, "maximum": 5, "description": "How much the builder tries for the engine that ships; tensorrt only."},
    )
    search_optimization_level: int | None = field(
        default=None,
        metadata={
            "minimum": 0,
            "maximum": 5,
            "description": "The same for the engines of the search, by default equal. Where it is lower, the finalists and the baseline "
            "are built again at optimization_level, scored, judged and timed; tensorrt only.",
        },
    )
    hardware_compatible: bool = field(
        default=False, metadata={"description": "Build for any GPU since Ampere instead of this one, mostly slower; tensorrt only."}
    )
    version_compatible: bool = field(
        default=False,
        metadata={"description": "Build for later TensorRT releases of the same major version too, mostly slower; tensorrt only."},
    )
    share_kernel_times: bool = field(
        default=True,
        metadata={
            "description": "Use the kernel times of earlier jobs, and leave this job's to later ones: builds are faster, and whoever gets "
            "a later `timing.cache` can read sizes and number formats of this model's layers; tensorrt only."
        },
    )

    build_routes: BuildRoutes | None = field(
        default=None,
        metadata={
            "description": "Build the fastest engine inside the budget again with other settings of TensorRT's compiler (its knobs, since "
            "11.1), and take what is faster and still inside: `fast` one knob at a time, `mixed` then the product of those that helped, "
            "`off` none. Each is a build, counted in max_trials and max_seconds. By default `mixed`, for no longer than the job "
            "took until then; tensorrt only."
        },
    )

    profiles: tuple[BatchProfile, ...] = field(
        default=(),
        metadata={
            "uniqueItems": True,
            "description": "Optimization profiles of the plan, in samples a call, in this order; one of them has to take batch_size, at "
            "which engines are scored and timed. By default one profile, of up to batch_size samples; tensorrt only.",
        },
    )

    weight_streaming_mb: int | None = field(
        default=None,
        metadata={
            "minimum": 0,
            "maximum": 1 << 24,
            "description": "Most GPU memory for an engine's weights, in MiB, as far as they can be streamed: the others stay in the host's "
            "memory and are brought over in every run, which is slower. By default all are on the GPU; tensorrt only.",
        },
    )

    strip_weights: bool = field(
        default=False,
        metadata={
            "description": "Ship the plan without its weights, which `refit.py` puts back from `model.explicit.onnx`. What ships is judged "
            "and timed with its weights put back; where that is no longer accurate or fast enough, the plan ships whole. For tensorrt, and "
            "tensorrt-rtx on a machine with the GPU."
        },
    )

    def __post_init__(self) -> None:
        """Refuse a search that builds with more effort than the engine that ships."""
        if self.search_level > self.optimization_level:
            raise InvalidConfigError(
                f"search_optimization_level: found {self.search_level}, expected at most optimization_level, {self.optimization_level}",
                fix="Lower search_optimization_level, or raise optimization_level.",
            )

    @property
    def search_level(self) -> int:
        """The level of the engines of the search."""
        return self.optimization_level if self.search_optimization_level is None else self.search_optimization_level

    @property
    def rebuilds(self) -> bool:
        """Whether finalists are built again at the final level."""
        return self.search_level < self.optimization_level


_FULL = "tensorrt"  # the target that may honour every key
OLDEST_COMPATIBLE = (8, 0)  # compute capability, of plans for any GPU since


@dataclass(frozen=True, slots=True)
class BuilderSupport:
    """What of ``BuilderConfig`` means something to a target."""

    keys: frozenset[str] = frozenset()  # what a target lacks stays at its default
    why_not: str = "it has no builder"  # of the other keys, in words
    lacking: Mapping[str, str] = field(default_factory=dict)  # why not, by key, where that is another reason


def check_builder(builder: BuilderConfig, target: str, support: BuilderSupport, compute_capability: tuple[int, int] | None) -> None:
    """Refuse settings that mean nothing to the target.

    Args:
        builder: The settings.
        target: What is built for.
        support: What of them it honours.
        compute_capability: Of the GPU, where it is known.

    Raises:
        InvalidConfigError: One differs from its default and is not used, or the GPU is too old for it.
    """
    for item in dataclasses.fields(builder):
        found = getattr(builder, item.name)
        if found != item.default and item.name not in support.keys:
            why = support.lacking.get(item.name, support.why_not)
            raise InvalidConfigError(
                f"builder.{item.name}: found {_shown(found)}, expected none for {target}: {why}",
                fix=f"Leave builder.{item.name} out{'' if target == _FULL else f', or set target to {_FULL}'}.",
            )
    if builder.hardware_compatible and compute_capability is not None and compute_capability < OLDEST_COMPATIBLE:
        found, oldest = (".".join(map(str, version)) for version in (compute_capability, OLDEST_COMPATIBLE))
        raise InvalidConfigError(
            f"builder.hardware_compatible: found true for a GPU of compute capability {found}, expected {oldest} (Ampere) or newer",
            fix="Leave builder.hardware_compatible out.",
        )


def _shown(found: object) -> str:
    if isinstance(found, tuple):
        return json.dumps(json_from_value(found))
    return str(found.value) if isinstance(found, enum.Enum) else str(found).lower()
