"""Samples first, whatever axis counts them in the model: both ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.codec import json_from_value, value_from_json
from calibration.data.dataset import CalibrationSet, load_saved
from calibration.data.sample_axes import OutputAxis, SampleAxes, in_model_form

STATES = np.arange(24.0).reshape(4, 2, 3)  # of 4 samples, (samples, layers, hidden)


@pytest.mark.parametrize(("axis", "shape"), [(0, (4, 2, 3)), (1, (2, 4, 3)), (2, (2, 3, 4)), (None, (2, 3))])
def test_samples_take_the_models_form(axis: int | None, shape: tuple[int, ...]) -> None:
    made = in_model_form(STATES, axis)
    assert made.shape == shape
    assert made.flags.c_contiguous
    np.testing.assert_array_equal(made if axis is None else np.take(made, 0, axis=axis), STATES[0])


@given(axis=st.integers(0, 3), entries=st.integers(1, 3), samples=st.integers(1, 4))
def test_an_output_comes_back_samples_first(axis: int, entries: int, samples: int) -> None:
    first = np.arange(samples * entries * 30).reshape(samples, entries, 2, 3, 5)
    flat = first.reshape(samples * entries, 2, 3, 5)
    found = OutputAxis(axis, entries).samples_first(np.moveaxis(flat, 0, axis), samples)
    np.testing.assert_array_equal(found, flat if entries == 1 else first)
    assert OutputAxis(axis, entries).shape_first(np.moveaxis(flat, 0, axis).shape) == found.shape


def test_an_output_without_an_axis_belongs_to_a_lone_sample() -> None:
    values = np.arange(6.0).reshape(2, 3)
    assert OutputAxis(None).samples_first(values, 1).shape == (1, 2, 3)
    assert OutputAxis(None).samples_first(values, 2) is values


@pytest.mark.parametrize(("axis", "entries"), [(-1, 1), (0, 0)])
def test_an_axis_outside_its_bounds_is_refused(axis: int, entries: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        OutputAxis(axis, entries)


def test_axes_tell_the_samples_of_a_call_and_its_parts() -> None:
    axes = SampleAxes({"rate": None, "h": 1}, (OutputAxis(1),))
    feeds = {"rate": np.array(3.0), "h": in_model_form(STATES, 1), "x": np.arange(4)}
    assert axes.samples(feeds) == 4
    part = axes.part(feeds, 1, 3)
    assert (part["rate"].item(), part["h"].shape, part["x"].tolist()) == (3.0, (2, 2, 3), [1, 2])
    assert axes.samples({"rate": np.array(3.0)}) == 1
    assert value_from_json(SampleAxes, json_from_value(axes)) == axes


@pytest.mark.parametrize(
    ("axes", "are_first"),
    [
        (SampleAxes(), True),
        (SampleAxes({"x": 0}, (OutputAxis(),)), True),
        (SampleAxes({"x": None}), False),
        (SampleAxes({}, (OutputAxis(1),)), False),
    ],
)
def test_axes_know_whether_all_are_first(axes: SampleAxes, are_first: bool) -> None:
    assert axes.are_first is are_first


def test_a_set_feeds_the_models_form_also_after_it_was_saved(tmp_path: Path) -> None:
    samples = CalibrationSet({"h": STATES, "x": np.arange(4.0)}, None, {"h": 1, "t": None}, {"rate": np.array(3.0)})
    samples.save(tmp_path / "set.npz")
    again = load_saved(tmp_path / "set.npz")
    assert (again.axes, list(again.settings)) == ({"h": 1, "t": None}, ["rate"])
    batches = list(again.take(np.array([2, 0, 1])).batches(2))
    assert [batch["h"].shape for batch in batches] == [(2, 2, 3), (2, 1, 3)]
    np.testing.assert_array_equal(batches[0]["h"][:, 0], STATES[2])
    assert all(batch["rate"] == 3.0 for batch in batches)
