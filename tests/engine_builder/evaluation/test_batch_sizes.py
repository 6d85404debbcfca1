"""Sizes of calls: fixed batches, whole batches, and every rule by which a timed call gets its shapes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pytest

from calibration.data.dataset import CalibrationSet
from calibration.errors import InvalidConfigError, InvalidModelError
from calibration.onnx_model.model_io import TensorSpec
from engine_builder.config.config import ShapeRange, config_from_json
from engine_builder.config.inspect_settings import inspect_settings
from engine_builder.config.value_range import ValueRange
from engine_builder.evaluation.batch_sizes import engine_sizes, fixed_batch, profile_values, timed_call, timing_shapes, whole_batches

DYNAMIC = (TensorSpec("ids", "int64", ("N", "T")), TensorSpec("mask", "float32", ("N", "T")))


def samples(**shapes: tuple[int, ...]) -> CalibrationSet:
    return CalibrationSet(MappingProxyType({name: np.arange(np.prod(shape)).reshape(shape) for name, shape in shapes.items()}), None)


def shapes_for(
    specs: tuple[TensorSpec, ...], config: Mapping[str, object], found: CalibrationSet | None = None
) -> dict[str, tuple[int, ...]]:
    return timing_shapes(specs, inspect_settings(config_from_json(config)), found or samples(ids=(10, 8), mask=(10, 8)))


def opt(*sizes: int) -> dict[str, object]:
    return {"min": [1] * len(sizes), "opt": list(sizes), "max": [64] * len(sizes)}


def integers(axes: Mapping[str, int | None], **values: list[object]) -> CalibrationSet:
    return CalibrationSet(MappingProxyType({name: np.array(array, dtype=np.int64) for name, array in values.items()}), None, axes)


def sizes_for(
    config: Mapping[str, object], specs: tuple[TensorSpec, ...] = DYNAMIC, *, is_fixed: bool = False
) -> tuple[dict[str, ShapeRange], tuple[dict[str, ShapeRange], ...]]:
    settings, found = inspect_settings(config_from_json(config)), samples(ids=(10, 8), mask=(10, 8))
    timed = timing_shapes(specs, settings, found)
    return engine_sizes(specs, settings, timed, found, batch=timed["ids"][0], is_fixed=is_fixed)


def two_profiles(**more: object) -> dict[str, object]:
    return {"builder": {"profiles": [{"min": 1, "opt": 1, "max": 16}, {"min": 8, "opt": 32, "max": 64}]}, **more}


def test_without_profiles_an_engine_takes_up_to_the_timed_batch() -> None:
    one, several = sizes_for({"batch_size": 4})
    assert one["ids"] == ShapeRange((1, 8), (4, 8), (4, 8))
    assert several == ()


@pytest.mark.parametrize(("batch", "place"), [(1, 0), (7, 0), (16, 0), (17, 1), (20, 1)])
def test_engines_are_timed_in_the_profile_whose_opt_is_nearest_of_those_that_take_the_batch(batch: int, place: int) -> None:
    one, several = sizes_for(two_profiles(batch_size=batch))
    assert [profile["mask"] for profile in several] == [
        ShapeRange((1, 8), (1, 8), (16, 8)),
        ShapeRange((8, 8), (32, 8), (64, 8)),
    ]
    assert one["ids"] == ShapeRange(several[place]["ids"].min, (batch, 8), several[place]["ids"].max)


def test_axes_that_count_no_samples_have_their_range_in_every_profile() -> None:
    shapes = {"ids": {"min": [2, 1], "opt": [2, 8], "max": [2, 64]}}
    _, several = sizes_for(two_profiles(shapes=shapes))
    assert [profile["ids"] for profile in several] == [ShapeRange((1, 1), (1, 8), (16, 64)), ShapeRange((8, 1), (32, 8), (64, 64))]


def test_a_batch_in_no_profile_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match=r"builder\.profiles: found 1 to 16, 8 to 64 samples, expected one profile that takes 65"):
        sizes_for(two_profiles(batch_size=65))


def test_profiles_of_a_model_whose_calls_have_a_fixed_number_of_samples_are_refused() -> None:
    for is_fixed, specs in ((True, DYNAMIC), (False, (TensorSpec("ids", "int64", (1, "T")), TensorSpec("mask", "float32", (1, "T"))))):
        with pytest.raises(InvalidConfigError, match=r"builder\.profiles: found 2, expected none: the model fixes the samples of a call"):
            sizes_for(two_profiles(), specs, is_fixed=is_fixed)


def test_a_range_of_samples_in_shapes_is_refused_beside_profiles() -> None:
    with pytest.raises(InvalidConfigError, match=r"shapes\.ids: found 1 to 64 samples beside builder\.profiles, expected one number"):
        sizes_for(two_profiles(shapes={"ids": opt(2, 8)}))


def test_values_of_inputs_that_may_set_sizes_are_those_of_all_samples() -> None:
    specs = (TensorSpec("size", "int64", (2,)), TensorSpec("ids", "int64", ("N", 8)), TensorSpec("x", "float32", (2,)))
    validation = integers({"size": None}, size=[[4, 4], [2, 9]], ids=[[0] * 8] * 2, x=[[0, 0]] * 2)
    calibration = integers({"size": None}, size=[[3, 1]], ids=[[0] * 8], x=[[0, 0]])
    timed = {"size": (2,), "ids": (1, 8), "x": (2,)}
    assert profile_values(specs, timed, validation, calibration) == {"size": ValueRange((2, 1), (4, 4), (4, 9))}


def test_of_values_that_count_samples_every_place_may_hold_any() -> None:
    found = profile_values((TensorSpec("n", "int32", (2,)),), {"n": (2,)}, integers({}, n=[5, 7, 6, 1]))
    assert found == {"n": ValueRange((1, 1), (5, 7), (7, 7))}


def test_a_single_value_has_no_axis() -> None:
    found = profile_values((TensorSpec("n", "int64", ()),), {"n": ()}, integers({"n": None}, n=[5, 7]))
    assert found == {"n": ValueRange((5,), (5,), (7,))}


def test_more_values_than_a_builder_takes_are_left_out() -> None:
    assert profile_values((TensorSpec("n", "int64", (65,)),), {"n": (65,)}, integers({"n": None}, n=[[1] * 65])) == {}


def test_a_dynamic_batch_is_not_fixed() -> None:
    assert fixed_batch(DYNAMIC) is None


def test_one_fixed_input_fixes_the_batch() -> None:
    assert fixed_batch((TensorSpec("a", "float32", (4, 2)), TensorSpec("b", "float32", ("N", 2)))) == 4


def test_inputs_that_fix_different_batches_are_refused() -> None:
    with pytest.raises(InvalidModelError, match="different numbers of samples a call: 'x1' 1, 'x2' 2"):
        fixed_batch(tuple(TensorSpec(f"x{size}", "float32", (size, 3)) for size in (1, 2)))


@pytest.mark.parametrize(("axes", "batch"), [({"h": 1}, 4), ({"h": None}, 1)])
def test_the_batch_is_fixed_where_the_input_counts_samples(axes: dict[str, int | None], batch: int) -> None:
    assert fixed_batch((TensorSpec("h", "float32", (2, 4, 8)),), axes) == batch


@pytest.mark.parametrize(("found", "batch", "kept"), [(10, 4, 8), (8, 4, 8), (3, 4, 4), (9, 1, 9)])
def test_samples_are_cut_or_repeated_to_whole_batches(found: int, batch: int, kept: int) -> None:
    assert whole_batches(samples(x=(found, 2)), batch).samples == kept


def test_rule_1_fixed_axes_stay() -> None:
    specs = (TensorSpec("x", "float32", (2, 3, "W")),)
    assert shapes_for(specs, {}, samples(x=(10, 3, 5))) == {"x": (2, 3, 5)}


def test_rule_2_opt_gives_the_sizes() -> None:
    specs = (TensorSpec("x", "float32", ("N", None)),)
    assert shapes_for(specs, {"shapes": {"x": opt(4, 6)}}, samples(x=(10, 5))) == {"x": (4, 6)}


def test_rule_3_axes_of_the_same_name_follow() -> None:
    assert shapes_for(DYNAMIC, {"shapes": {"ids": opt(4, 13)}}) == {"ids": (4, 13), "mask": (4, 13)}


def test_rule_4_the_rest_is_batch_size_and_the_samples_own_sizes() -> None:
    assert shapes_for(DYNAMIC, {"batch_size": 16}) == {"ids": (16, 8), "mask": (16, 8)}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"shapes": {"id": opt(1, 8)}}, "shapes: found input 'id'"),
        ({"shapes": {"ids": opt(1, 8, 2)}}, "shapes.ids: found 3 axes, expected 2"),
        ({"shapes": {"ids": {"min": [1, 9], "opt": [1, 9], "max": [1, 9]}}}, "axis 1 of the samples has size 8, expected 9 to 9"),
        ({"shapes": {"ids": opt(1, 8), "mask": opt(1, 9)}}, "shapes.mask: found opt 9 on axis 1, expected 8: the model calls it 'T'"),
        ({"shapes": {"ids": opt(1, 8), "mask": opt(2, 8)}}, "shapes.mask: found opt 2 on axis 0, expected 1: the model calls it 'N'"),
        ({"shapes": {"ids": opt(4, 8)}, "batch_size": 2}, "batch_size: found 2, expected 4, the number of samples in shapes"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(config: Mapping[str, object], words: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        shapes_for(DYNAMIC, config)
    assert words in caught.value.detail


def test_shapes_must_leave_a_fixed_axis_alone() -> None:
    specs = (TensorSpec("x", "float32", (1, 3)),)
    with pytest.raises(InvalidConfigError, match="found 1 to 64 on axis 0, expected 1: the model fixes it"):
        shapes_for(specs, {"shapes": {"x": opt(1, 3)}}, samples(x=(10, 3)))


def test_axes_of_samples_without_names_must_agree() -> None:
    specs = (TensorSpec("a", "float32", (None, None)), TensorSpec("b", "float32", (None, None)))
    with pytest.raises(InvalidConfigError, match="different numbers of samples in opt: a 2, b 3"):
        shapes_for(specs, {"shapes": {"a": opt(2, 2), "b": opt(3, 2)}}, samples(a=(10, 2), b=(10, 2)))


def test_a_timed_call_repeats_and_cuts_real_samples() -> None:
    found = timed_call(samples(x=(3, 4)), {"x": (5, 2)})["x"]
    np.testing.assert_array_equal(found, [[0, 1], [4, 5], [8, 9], [0, 1], [4, 5]])
    assert found.flags.c_contiguous
