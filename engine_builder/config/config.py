"""What a user may ask of a job: the only schema, from which the service derives its own."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from calibration.accuracy.metrics import OutputKind
from calibration.codec import as_object, json_from_value
from calibration.data.formats.preprocess import Preprocess, TokenOptions
from calibration.errors import InvalidConfigError
from calibration.number_formats.precision import Precision
from calibration.number_formats.weight_scales import INTEGERS
from calibration.ranges.range_table import RangeMethod
from engine_builder.config.accuracy import AccuracyConfig
from engine_builder.config.builder_options import BuilderConfig
from engine_builder.config.objective import BUDGET_KEYS, Objective, refuse_two_questions
from engine_builder.config.schema import describe, read


class ExactOn(enum.StrEnum):
    """Which processors an engine of integers must compute the same on: what its weights are rounded for."""

    THIS_MACHINE = "this_machine"
    ANY_X86_64 = "any_x86_64"


class Order(enum.StrEnum):
    """By what the search sorts the layers before it bisects."""

    LOSS = "loss"
    HESSIAN = "hessian"
    HESSIAN_AND_DEPENDENCY = "hessian+dependency"
    CONDITIONAL = "conditional"


class AnalysisWanted(enum.StrEnum):
    """Whether every layer's sensitivity and its dependencies are measured."""

    AUTO = "auto"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class OutputConfig:
    """What the user says of one output of the model."""

    kind: OutputKind | None = field(default=None, metadata={"description": "What it holds; found from the model by default."})
    weight: float = field(
        default=1.0,
        metadata={
            "exclusiveMinimum": 0,
            "maximum": 1_000_000,
            "description": "Weight in the mean over outputs: of the loss, and of scores where weights differ (else the worst counts).",
        },
    )


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """Sizes of every axis of one input; the engine accepts min to max and is timed at opt."""

    min: tuple[int, ...] = field(metadata={"minimum": 1, "minItems": 1, "description": "Least size of each axis."})
    opt: tuple[int, ...] = field(metadata={"minimum": 1, "minItems": 1, "description": "The sizes that engines are timed at."})
    max: tuple[int, ...] = field(metadata={"minimum": 1, "minItems": 1, "description": "Largest size of each axis."})

    def __post_init__(self) -> None:
        """Refuse ranges whose parts do not fit together."""
        found = f"min {list(self.min)}, opt {list(self.opt)}, max {list(self.max)}"
        if not len(self.min) == len(self.opt) == len(self.max):
            raise InvalidConfigError(f"found {found}, expected equally many axes in each", fix="Name every axis in min, opt and max.")
        if any(not low <= opt <= high for low, opt, high in zip(self.min, self.opt, self.max, strict=True)):
            raise InvalidConfigError(f"found {found}, expected min <= opt <= max on each axis", fix="Put the sizes in order.")


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """How long to search, by which orders, from which seed."""

    max_trials: int | None = field(
        default=None,
        metadata={
            "minimum": 1,
            "description": "Most trials, 40 by default; baseline and first engine are always made. An engine that is built again with "
            "corrections counts once.",
        },
    )
    max_seconds: float | None = field(
        default=None,
        metadata={
            "exclusiveMinimum": 0,
            "description": "Start no further trial that, at the mean time of the engines tried so far (builds included), would end after "
            "the job's stages took this long. The baseline and the first engine are always tried; the verdict comes on top.",
        },
    )
    orders: tuple[Order, ...] = field(
        default=tuple(Order),
        metadata={"minItems": 1, "uniqueItems": True, "description": "Orders of the layers to bisect, beside the predicted frontier."},
    )
    seed: int = field(
        default=0,
        metadata={"minimum": 0, "maximum": 2**32 - 1, "description": "Of every random choice: samples held out, probes, resampling."},
    )


@dataclass(frozen=True, slots=True)
class RangeConfig:
    """How ranges are found from the calibration samples."""

    method: RangeMethod = field(
        default=RangeMethod.AUTO,
        metadata={
            "description": "How a range is chosen. `auto` and `best` start from minmax and measure the others against it as one of the "
            "corrections, which they need: `auto` for all tensors together, `best` tensor by tensor."
        },
    )
    samples: int | None = field(
        default=None, metadata={"minimum": 1, "description": "Most samples used for ranges and probes; all by default."}
    )
    repair: bool = field(
        default=True,
        metadata={
            "description": "Try corrections of quantized layers, and keep those that lower the loss on samples they were not fitted to; "
            "those of biases always, the others where analysis says."
        },
    )
    second_order: tuple[Precision, ...] = field(
        default=tuple(precision for precision in INTEGERS if precision.has_few_bits),
        metadata={
            "uniqueItems": True,
            "description": "Precisions of integers whose weights one of the corrections rounds by GPTQ; "
            "int8 also, unasked, in layers that lose much by the rounding of their weight; [] for none.",
        },
    )

    def __post_init__(self) -> None:
        """Refuse GPTQ to what is not an integer."""
        for precision in self.second_order:
            if precision not in INTEGERS:
                raise InvalidConfigError(
                    f"second_order: found {precision}, expected one of {', '.join(INTEGERS)}",
                    fix="Remove it: only integer weights have levels.",
                )


@dataclass(frozen=True, slots=True)
class Config:
    """A job's settings with every default filled in."""

    target: str = field(default="onnxruntime-cpu", metadata={"description": "One of GET /v1/targets."})
    gpu: str | None = field(default=None, metadata={"description": "The GPU's product name, for targets that run on one: L4, RTX 4090."})
    gpus: tuple[str, ...] = field(
        default=(),
        metadata={
            "uniqueItems": True,
            "description": "Several types of GPU in the place of `gpu`: a server makes an engine for each, at the same time where it has "
            "workers for them, and what does not depend on the type is measured once.",
        },
    )
    accuracy: AccuracyConfig = field(
        default_factory=AccuracyConfig, metadata={"description": "The accuracy budget, and what it is stated in."}
    )
    objective: Objective | None = field(
        default=None,
        metadata={
            "description": "How fast the engine must be: asks for the most accurate one that is, in the place of an accuracy budget."
        },
    )
    outputs: Mapping[str, OutputKind | OutputConfig] = field(
        default_factory=dict,
        metadata={
            "description": "What an output holds, by its name, where it is not found rightly from the model; or an object of its kind and "
            "its weight."
        },
    )
    state: Mapping[str, str] = field(
        default_factory=dict,
        metadata={
            "description": "Of a model with a state, which input takes each output in the next step: {output: input}, all pairs; found by "
            "names, types and shapes by default."
        },
    )
    preprocess: Preprocess = field(
        default_factory=Preprocess, metadata={"description": "How pictures, and arrays of bytes for inputs of floats, are prepared."}
    )
    tokens: TokenOptions = field(default_factory=TokenOptions, metadata={"description": "How rows of tokens become one array."})
    precisions: tuple[Precision, ...] | None = field(
        default=None,
        metadata={
            "minItems": 1,
            "uniqueItems": True,
            "description": "Precisions a layer may take; by default those of `assignment`, or all of the target's.",
        },
    )
    assignment: Mapping[str, Precision] = field(
        default_factory=dict,
        metadata={
            "description": "The precision of every layer by its name, as in assignment.json; `*` stands for the layers that are not named. "
            "Its engine is tried first and judged like any; with search.max_trials 2 it is the only one."
        },
    )
    assignment_only: bool = field(
        default=False,
        metadata={
            "description": "Build what `assignment` says without a search, and keep that engine whatever its accuracy and speed, which are "
            "measured."
        },
    )
    shapes: Mapping[str, ShapeRange] = field(default_factory=dict, metadata={"description": "Sizes of dynamic inputs, by input name."})
    batch_size: int = field(
        default=1, metadata={"minimum": 1, "maximum": 65536, "description": "Samples per call that the engine is timed with."}
    )
    search: SearchConfig = field(default_factory=SearchConfig, metadata={"description": "How long to search, and in which orders."})
    analysis: AnalysisWanted = field(
        default=AnalysisWanted.AUTO,
        metadata={
            "description": "When corrections (those of biases apart), sensitivities and dependencies of layers are measured: auto only "
            "where the accuracy budget binds, that is where the fastest engine does not keep it; full always, for the report."
        },
    )
    calibration: RangeConfig = field(default_factory=RangeConfig, metadata={"description": "How tensors and weights are rounded."})
    builder: BuilderConfig = field(default_factory=BuilderConfig, metadata={"description": "How TensorRT builds."})
    threads: int = field(
        default=1, metadata={"minimum": 1, "maximum": 1024, "description": "Threads an engine runs with, on onnxruntime-cpu."}
    )
    exact_on: ExactOn = field(
        default=ExactOn.THIS_MACHINE,
        metadata={
            "description": "Where int8 layers of an onnxruntime-cpu engine must be exact. Kernels of x86-64 without VNNI saturate; "
            "any_x86_64 rounds weights so that they cannot, as this_machine does where it has such kernels."
        },
    )

    def __post_init__(self) -> None:
        """Refuse an assignment that asks for what the other settings exclude, and GPUs that are named twice over."""
        if self.gpus and self.gpu is not None:
            raise InvalidConfigError(
                f"gpus: found {', '.join(self.gpus)} beside gpu {self.gpu!r}", fix="Name all types in `gpus`, or one in `gpu`."
            )
        if self.assignment_only and not self.assignment:
            raise InvalidConfigError("assignment_only: found no assignment to build", fix="Give `assignment` too.")
        if self.assignment_only and self.objective is not None:
            raise InvalidConfigError(
                "objective: found one together with assignment_only, which keeps the engine that is given", fix="Leave one of them out."
            )
        for name, precision in self.assignment.items():
            if self.precisions is not None and precision.is_quantized and precision not in self.precisions:
                raise InvalidConfigError(
                    f"assignment: layer {name!r} asks for {precision}, which `precisions` leaves out",
                    fix=f"Add {precision} to `precisions`, or leave `precisions` out.",
                )

    @property
    def output_kinds(self) -> dict[str, OutputKind]:
        """The kinds that were given, by output name."""
        given = {name: item.kind if isinstance(item, OutputConfig) else item for name, item in self.outputs.items()}
        return {name: kind for name, kind in given.items() if kind is not None}

    @property
    def output_weights(self) -> dict[str, float]:
        """The weights that were given, by output name; any other output weighs 1."""
        return {name: item.weight for name, item in self.outputs.items() if isinstance(item, OutputConfig)}


def config_from_json(data: object) -> Config:
    """Return the configuration that a JSON object describes, defaults filled in.

    Args:
        data: A parsed JSON object; every key is optional.

    Raises:
        InvalidConfigError: A key is unknown (the nearest known one is named), or a value is of the wrong type or out of range, or there is
            an objective as well as an accuracy budget.
    """
    refuse_two_questions(data)
    return read(Config, data)


def config_json(config: Config) -> dict[str, object]:
    """Return the effective configuration as JSON: ``config_from_json`` of it gives an equal one."""
    effective = as_object(json_from_value(config))
    if config.objective is not None:  # it takes the place of the budget
        effective["accuracy"] = {key: value for key, value in as_object(effective["accuracy"]).items() if key not in BUDGET_KEYS}
    return effective


def json_schema() -> dict[str, object]:
    """Return the JSON schema of the configuration."""
    return describe(Config)
