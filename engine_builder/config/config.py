"""What a user may ask of a job: the only schema, from which the service derives its own."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from calibration.accuracy.measures.options import MeasureOptions
from calibration.accuracy.metrics import BudgetKey, Metric, OutputKind, names_in_words
from calibration.accuracy.verdict import Budget
from calibration.codec import as_object, json_from_value
from calibration.errors import InvalidConfigError
from calibration.number_formats.precision import Precision
from calibration.number_formats.weight_scales import INTEGERS
from calibration.ranges.range_table import RangeMethod
from engine_builder.config.builder_options import BuilderConfig
from engine_builder.config.objective import BUDGET_KEYS, Objective, refuse_two_questions
from engine_builder.config.schema import describe, read

DEFAULT_MIN_RELATIVE = 0.99


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
class AccuracyConfig:
    """The accuracy budget: one of the keys of ``BudgetKey``; 0.99 of the float model's score if none is given."""

    metric: Metric | None = field(
        default=None,
        metadata={
            "description": "Default: top1 with labels, token_f1 with labels of tokens, decisions with labels of 0 and 1 for each score, "
            "regression with numbers for each value, agreement where outputs surely hold classes, "
            "closeness for single scores, else fidelity; custom where a metric model comes with the job. "
            + "".join(f"{metric}: {metric.spec.words}. " for metric in Metric).rstrip()
        },
    )
    min_relative: float | None = field(
        default=None,
        metadata={
            "minimum": 0,
            "maximum": 1,
            "description": f"Least share of the float model's score; {DEFAULT_MIN_RELATIVE} if no budget is given.",
        },
    )
    max_nmse: float | None = field(
        default=None, metadata={"exclusiveMinimum": 0, "description": "Largest mean squared error, relative to the outputs' mean square."}
    )
    min_psnr: float | None = field(
        default=None,
        metadata={"exclusiveMinimum": 0, "maximum": 140, "description": "Least mean peak signal-to-noise ratio in decibels."},
    )
    min_si_snr: float | None = field(
        default=None,
        metadata={
            "exclusiveMinimum": 0,
            "maximum": 140,
            "description": "Least mean scale-invariant signal-to-noise ratio in decibels, of sounds.",
        },
    )
    confidence: float | None = field(
        default=None,
        metadata={
            "minimum": 0.5,
            "exclusiveMaximum": 1,
            "description": "Demand that the budget be met with this confidence; without it an engine that is more likely inside the budget "
            "than not is accepted.",
        },
    )
    label_names: tuple[str, ...] | None = field(
        default=None,
        metadata={
            "minItems": 1,
            "uniqueItems": True,
            "description": "Names of the classes in the model's order, for token_f1 and span_f1: IOB2 names ('O', 'B-PER', 'I-PER') tell "
            "what a span is. Without them class 0 is outside and a span is a run of one class.",
        },
    )
    measure: MeasureOptions = field(
        default_factory=MeasureOptions,
        metadata={"description": "How the metric reads the outputs; a key that means nothing to the metric is refused."},
    )
    allow_chance: bool = field(
        default=False,
        metadata={"description": "Warn, not refuse, where the float model fits the labels no better than the best constant answer does."},
    )

    def __post_init__(self) -> None:
        """Fill in the default budget and the metric it implies, and refuse budgets that contradict each other."""
        given = [key for key in BudgetKey if getattr(self, key) is not None]
        if len(given) > 1:
            raise InvalidConfigError(f"found {' and '.join(given)}, expected one budget", fix="Keep one of them.")
        needed = self.metric.spec.budget_key if self.metric else None
        if needed and not given and needed is not BudgetKey.MIN_RELATIVE:
            raise InvalidConfigError(f"the metric {self.metric} needs `{needed}`", fix=f"Add accuracy.{needed}.")
        if needed and given and given[0] is not needed:
            raise InvalidConfigError(
                f"found the metric {self.metric} with {given[0]}, expected {needed}",
                fix=f"Replace {given[0]} by {needed}, or leave metric out.",
            )
        if not given:
            object.__setattr__(self, "min_relative", DEFAULT_MIN_RELATIVE)
        if self.metric is None and self.min_relative is None:
            object.__setattr__(self, "metric", next(metric for metric in Metric if metric.spec.budget_key is given[0]))
        if self.metric is not None:
            check_measure_options(self.metric, self.measure)
        if self.label_names is not None and self.metric is not None and not self.metric.is_per_token:
            per_token = names_in_words(lambda metric: metric.is_per_token)
            raise InvalidConfigError(
                f"found label_names with the metric {self.metric}, expected {per_token}",
                fix=f"Leave label_names out, or set metric to {per_token}.",
            )
        if self.metric is not None and self.metric.spec.check_label_names is not None:
            self.metric.spec.check_label_names(self.label_names or ())

    @property
    def budget(self) -> Budget:
        """The budget as the verdict takes it."""
        return Budget(min_relative=self.min_relative, max_nmse=self.max_nmse, min_psnr=self.min_psnr, min_si_snr=self.min_si_snr)


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
        default=None, metadata={"minimum": 1, "description": "Most engines to build and measure, 40 by default."}
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
        default=RangeMethod.MINMAX,
        metadata={
            "description": "How a range is chosen; `best` measures the others against minmax as one of the corrections, and needs them on."
        },
    )
    samples: int | None = field(
        default=None, metadata={"minimum": 1, "description": "Most samples used for ranges and probes; all by default."}
    )
    repair: bool = field(
        default=True,
        metadata={
            "description": "Try corrections of quantized layers, and keep those that lower the loss on samples they were not fitted to."
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
    precisions: tuple[Precision, ...] | None = field(
        default=None,
        metadata={"minItems": 1, "uniqueItems": True, "description": "Precisions a layer may take; all of the target's by default."},
    )
    shapes: Mapping[str, ShapeRange] = field(default_factory=dict, metadata={"description": "Sizes of dynamic inputs, by input name."})
    batch_size: int = field(
        default=1, metadata={"minimum": 1, "maximum": 65536, "description": "Samples per call that the engine is timed with."}
    )
    search: SearchConfig = field(default_factory=SearchConfig, metadata={"description": "How long to search, and in which orders."})
    analysis: AnalysisWanted = field(
        default=AnalysisWanted.AUTO,
        metadata={
            "description": "When sensitivities and dependencies of layers are measured: auto only where the accuracy budget binds, that is "
            "where the fastest engine does not keep it; full always, for the report."
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


def check_measure_options(metric: Metric, options: MeasureOptions) -> None:
    """Refuse options that mean nothing to the metric.

    Raises:
        InvalidConfigError: With those that it reads.
    """
    known = metric.spec.joint.options if metric.spec.joint is not None else frozenset[str]()
    for name in options.given():
        if name not in known:
            readers = " or ".join(one for one in Metric if one.spec.joint is not None and name in one.spec.joint.options)
            raise InvalidConfigError(
                f"measure.{name}: found with the metric {metric}, expected {readers}", fix="Leave the key out, or set accuracy.metric."
            )


def json_schema() -> dict[str, object]:
    """Return the JSON schema of the configuration."""
    return describe(Config)
