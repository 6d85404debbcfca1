from __future__ import annotations

import shlex
from collections.abc import Mapping

import pytest

from engine_builder.config.builder_options import BuilderConfig
from engine_builder.config.config import ShapeRange
from engine_builder.config.value_range import ValueRange
from engine_builder.interchange.trtexec_command import trtexec_command

IMAGE = ShapeRange((1, 3, 224, 224), (8, 3, 224, 224), (16, 3, 224, 224))


def options(
    builder: BuilderConfig | None = None,
    version: str = "11.4.0.106",
    cache: str | None = None,
    shapes: Mapping[str, ShapeRange] | None = None,
) -> list[str]:
    command = trtexec_command(
        builder or BuilderConfig(),
        shapes or {},
        {},
        version=version,
        explicit="model.explicit.onnx",
        engine="engine.plan",
        timing_cache=cache,
    )
    return shlex.split(command)


def test_it_builds_the_explicit_model_as_the_job_did() -> None:
    assert options(cache="timing.cache") == [
        "trtexec",
        "--onnx=model.explicit.onnx",
        "--saveEngine=engine.plan",
        "--noTF32",
        "--profilingVerbosity=detailed",
        "--builderOptimizationLevel=3",
        "--timingCacheFile=timing.cache",
    ]


def test_version_10_is_told_that_types_are_strong() -> None:
    assert ("--stronglyTyped" in options(version="10.12.0.36"), "--stronglyTyped" in options()) == (True, False)


@pytest.mark.parametrize(
    ("builder", "option"),
    [
        (BuilderConfig(optimization_level=5), "--builderOptimizationLevel=5"),
        (BuilderConfig(workspace_mb=512), "--memPoolSize=workspace:512"),
        (BuilderConfig(hardware_compatible=True), "--hardwareCompatibilityLevel=ampere+"),
        (BuilderConfig(version_compatible=True), "--versionCompatible"),
        (BuilderConfig(weight_streaming_mb=512), "--allowWeightStreaming"),
        (BuilderConfig(weight_streaming_mb=512), "--weightStreamingBudget=512M"),
    ],
)
def test_what_the_builder_was_asked_for_is_asked_for_again(builder: BuilderConfig, option: str) -> None:
    assert option in options(builder)


def test_profiles_are_given_by_input() -> None:
    found = options(shapes={"image": IMAGE, "mask:0": ShapeRange((1,), (2,), (3,))})
    assert found[-3:] == [
        "--minShapes=image:1x3x224x224,'mask:0':1",
        "--optShapes=image:8x3x224x224,'mask:0':2",
        "--maxShapes=image:16x3x224x224,'mask:0':3",
    ]


def test_several_profiles_are_given_one_after_the_other_with_the_values_in_each() -> None:
    profiles = [{"x": ShapeRange((1, 3), (1, 3), (4, 3))}, {"x": ShapeRange((8, 3), (32, 3), (64, 3))}]
    values = {"k": ValueRange((1,), (2,), (3,))}
    command = trtexec_command(
        BuilderConfig(), profiles[1], values, version="11.4", explicit="m.onnx", engine="e.plan", timing_cache=None, profiles=profiles
    )
    assert shlex.split(command)[-8:] == [
        *("--profile=0", "--minShapes=x:1x3,k:1", "--optShapes=x:1x3,k:2", "--maxShapes=x:4x3,k:3"),
        *("--profile=1", "--minShapes=x:8x3,k:1", "--optShapes=x:32x3,k:2", "--maxShapes=x:64x3,k:3"),
    ]


def test_values_that_set_sizes_are_part_of_the_profile() -> None:
    values = {"size": ValueRange((32, 32), (64, 64), (128, 128)), "k": ValueRange((), (), ())}
    command = trtexec_command(BuilderConfig(), {}, values, version="11.4", explicit="m.onnx", engine="e.plan", timing_cache=None)
    assert "--optShapes=size:64x64,k:scalar" in shlex.split(command)


def test_a_build_route_is_one_option() -> None:
    route = "-fuse=off -tile=2"
    command = trtexec_command(
        BuilderConfig(), {}, {}, version="11.4", explicit="m.onnx", engine="e.plan", timing_cache=None, build_route=route
    )
    assert f"--setBuildRoute={route}" in shlex.split(command)
    assert not any(option.startswith("--setBuildRoute") for option in options())


def test_weights_are_left_out_where_the_plan_is_kept_without() -> None:
    builder = BuilderConfig(strip_weights=True)  # which a plan with its weights may have come of, too
    for is_stripped in (True, False):
        command = trtexec_command(
            builder, {}, {}, version="11.4", explicit="m.onnx", engine="e.plan", timing_cache=None, is_stripped=is_stripped
        )
        assert ("--stripWeights" in shlex.split(command)) is is_stripped
        assert "--refit" not in shlex.split(command)  # that would be for any weights
