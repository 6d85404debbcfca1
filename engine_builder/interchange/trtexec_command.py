"""The ``trtexec`` command that builds a job's engine again from its ``model.explicit.onnx``.

``network_build`` sets the same through the library's own interface. Version 11 knows nothing but strongly typed networks; version 10 has
to be told.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from engine_builder.config.builder_options import BuilderConfig
from engine_builder.config.config import ShapeRange
from engine_builder.config.value_range import ValueRange
from engine_builder.records.inspection import Calls
from engine_builder.stage_io.engines import VerdictResult

_ENDS = ("min", "opt", "max")


def command_of(
    builder: BuilderConfig,
    calls: Calls,
    judgement: VerdictResult,
    *,
    has_timing_cache: bool,
    build_route: str = "",
    is_stripped: bool = False,
) -> str | None:
    """Return the command for what a verdict keeps; None where that is no plan of TensorRT's, or its explicit model is not kept.

    Args:
        builder: How the job builds.
        calls: What its engines accept.
        judgement: What is kept.
        has_timing_cache: Whether ``timing.cache`` goes with it.
        build_route: By which it was built; empty: the builder's own.
        is_stripped: Whether the plan is kept without its weights.
    """
    version, explicit = judgement.environment.get("tensorrt"), judgement.explicit
    if judgement.profile is None or version is None or explicit is None:
        return None
    return trtexec_command(
        builder,
        calls.engine_shapes,
        calls.engine_values,
        version=str(version),
        explicit=explicit.file,
        engine="engine.plan",
        timing_cache="timing.cache" if has_timing_cache else None,
        build_route=build_route,
        profiles=calls.engine_profiles,
        is_stripped=is_stripped,
    )


def trtexec_command(
    builder: BuilderConfig,
    shapes: Mapping[str, ShapeRange],
    values: Mapping[str, ValueRange],
    *,
    version: str,
    explicit: str,
    engine: str,
    timing_cache: str | None,
    build_route: str = "",
    profiles: Sequence[Mapping[str, ShapeRange]] = (),
    is_stripped: bool = False,
) -> str:
    """Return the command, as a shell takes it.

    Args:
        builder: How the engine was built.
        shapes: Sizes of each input with an open axis.
        values: Of each input whose values set sizes.
        version: Of TensorRT: 11.4.0.106.
        explicit: Name of the model's file.
        engine: Name of the plan's file.
        timing_cache: Name of the file of kernel times; None where there is none.
        build_route: Of the builder's knobs; empty: its own.
        profiles: Sizes as in ``shapes`` of each optimization profile, in the plan's order; empty: one profile, of ``shapes``.
        is_stripped: Whether to leave the weights out.
    """
    options = [f"--onnx={explicit}", f"--saveEngine={engine}", "--noTF32", "--profilingVerbosity=detailed"]
    if version.split(".")[0] == "10":
        options.append("--stronglyTyped")
    options.append(f"--builderOptimizationLevel={builder.optimization_level}")
    if builder.workspace_mb is not None:
        options.append(f"--memPoolSize=workspace:{builder.workspace_mb}")
    if builder.hardware_compatible:
        options.append("--hardwareCompatibilityLevel=ampere+")
    if builder.version_compatible:
        options.append("--versionCompatible")
    if builder.weight_streaming_mb is not None:
        options += ["--allowWeightStreaming", f"--weightStreamingBudget={builder.weight_streaming_mb}M"]
    if is_stripped:
        options.append("--stripWeights")  # for these very weights, unless --refit is there too
    if build_route:
        options.append(f"--setBuildRoute={build_route}")
    if timing_cache is not None:
        options.append(f"--timingCacheFile={timing_cache}")
    for index, profile in enumerate(profiles or (shapes,)):
        ranges = {**profile, **values}
        options += [f"--profile={index}"] if len(profiles) > 1 else []
        options += [f"--{end}Shapes={','.join(_sizes(name, getattr(one, end)) for name, one in ranges.items())}" for end in _ENDS if ranges]
    return shlex.join(["trtexec", *options])


def _sizes(name: str, sizes: tuple[int, ...]) -> str:
    """Return a profile's entry; a name with a colon in it stands in quotes, as trtexec wants it."""
    shown = f"'{name}'" if ":" in name else name
    return f"{shown}:{'x'.join(map(str, sizes)) or 'scalar'}"
