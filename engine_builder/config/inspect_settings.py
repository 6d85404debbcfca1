"""The part of a job's settings that its first stage reads: neither the accuracy budget nor how to search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from calibration.accuracy.measures.options import MeasureOptions
from calibration.accuracy.metrics import Metric, OutputKind
from calibration.data.formats.preprocess import Preprocess, TokenOptions
from engine_builder.config.builder_options import BatchProfile
from engine_builder.config.config import Config, ExactOn, OutputConfig, ShapeRange


@dataclass(frozen=True, slots=True)
class InspectSettings:
    """Settings that bear on how the model is read, called and scored; each as in ``Config``."""

    target: str
    gpu: str | None
    metric: Metric | None
    label_names: tuple[str, ...] | None
    measure: MeasureOptions
    allow_chance: bool
    outputs: Mapping[str, OutputConfig]
    state: Mapping[str, str]
    preprocess: Preprocess
    tokens: TokenOptions
    shapes: Mapping[str, ShapeRange]
    batch_size: int
    profiles: tuple[BatchProfile, ...]
    samples: int | None  # most calibration samples
    seed: int
    threads: int
    exact_on: ExactOn

    @property
    def output_kinds(self) -> dict[str, OutputKind]:
        """The kinds that were given, by output name."""
        return {name: given.kind for name, given in self.outputs.items() if given.kind is not None}

    @property
    def output_weights(self) -> dict[str, float]:
        """The weights that were given, by output name; any other output weighs 1."""
        return {name: given.weight for name, given in self.outputs.items()}


def inspect_settings(config: Config) -> InspectSettings:
    """Return what the first stage reads of a job's settings."""
    return InspectSettings(
        target=config.target,
        gpu=config.gpu,
        metric=config.accuracy.metric,
        label_names=config.accuracy.label_names,
        measure=config.accuracy.measure,
        allow_chance=config.accuracy.allow_chance,
        outputs={name: item if isinstance(item, OutputConfig) else OutputConfig(item) for name, item in config.outputs.items()},
        state=config.state,
        preprocess=config.preprocess,
        tokens=config.tokens,
        shapes=config.shapes,
        batch_size=config.batch_size,
        profiles=config.builder.profiles,
        samples=config.calibration.samples,
        seed=config.search.seed,
        threads=config.threads,
        exact_on=config.exact_on,
    )
