"""What is a setting of the whole job, and what becomes of it in the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from calibration.data.dataset import read_samples
from calibration.data.settings import check_same_settings, make_constant, note_of, settings_from
from calibration.errors import InvalidCalibrationSetError
from calibration.graph_passes.normalize import prepare
from calibration.onnx_model.model_io import TensorSpec
from tests.model_text import Array, model_from_text, run

X = TensorSpec("x", "float32", ("N", 6))
FIXED_X = TensorSpec("x", "float32", (1, 6))
SCALAR, ONE, PAIR = (TensorSpec("s", "float32", dims) for dims in ((), (1,), (2,)))


@pytest.mark.parametrize(
    ("x", "spec", "array", "value"),
    [
        (X, SCALAR, np.float32(1.5), 1.5),  # rule 1
        (X, SCALAR, np.full(1, 1.5), 1.5),
        (X, ONE, np.float32(1.5), [1.5]),
        (X, SCALAR, np.full(9, 1.5), 1.5),  # rule 2
        (X, SCALAR, np.full((9, 1), 1.5), 1.5),
        (X, ONE, np.full(9, 1.5), [1.5]),
        (FIXED_X, SCALAR, np.full(9, 1.5), 1.5),
        (X, PAIR, np.full((9, 2), 1.5), [1.5, 1.5]),  # rule 3
        (X, PAIR, np.array([8.0, 4.0]), [8.0, 4.0]),  # rule 4
        (X, SCALAR, np.arange(9.0), None),
        (X, ONE, np.arange(9.0), None),
        (X, PAIR, np.arange(18.0).reshape(9, 2), None),
        (FIXED_X, ONE, np.full(9, 1.5), None),
        (FIXED_X, PAIR, np.full((9, 2), 1.5), None),
    ],
)
def test_what_is_a_setting(x: TensorSpec, spec: TensorSpec, array: Array, value: object) -> None:
    found = settings_from({"x": np.ones((9, 6)), "s": np.asarray(array)}, [x, spec])
    assert ({name: value.tolist() for name, value in found.items()}) == ({} if value is None else {"s": value})


def test_a_scalar_of_another_value_for_each_sample_takes_one_sample_a_call(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((9, 6), np.float32), s=np.arange(9.0, dtype=np.float32)[:, None])
    found = read_samples(tmp_path / "a.npz", [X, SCALAR])
    assert (found.axes, found.settings) == ({"s": None}, {})
    setting = found.feeds(4, 5)["s"]
    assert (setting.shape, setting.item()) == ((), 4.0)


def test_a_scalar_of_neither_form_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((9, 6), np.float32), s=np.ones((9, 3), np.float32))
    with pytest.raises(InvalidCalibrationSetError, match="array 's': "):
        read_samples(tmp_path / "a.npz", [X, SCALAR])


@pytest.mark.parametrize("dims", [("N",), ("N", 1)])
def test_one_value_for_an_input_of_every_sample_is_repeated(dims: tuple[int | str, ...], tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((9, 6), np.float32), s=np.float32(2.5))
    found = read_samples(tmp_path / "a.npz", [X, TensorSpec("s", "float32", dims)])
    assert found.settings == {}
    np.testing.assert_array_equal(found.inputs["s"], np.full((9,) + (1,) * (len(dims) - 1), 2.5))


def scaled() -> onnx.ModelProto:
    return model_from_text(
        """g (float[N,6] x, float s) => (float[N,3] y) {
            zero = Constant<value = float {0.0}>()
            is_on = Greater(s, zero)
            h = MatMul(x, w)
            y = If(is_on) <then_branch = a () => (float[N,3] p) { p = Mul(h, s) }, else_branch = b () => (float[N,3] q) { q = Identity(h) }>
        }""",
        {"w": (6, 3)},
    )


def test_what_hangs_on_a_setting_is_computed_once_and_the_input_stays() -> None:
    model, x = scaled(), np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    wanted = run(model, {"x": x, "s": np.array(2.0, np.float32)})[0]
    make_constant(model, {"s": np.array(2.0, np.float32)})
    prepared = prepare(model).model
    assert [node.op_type for node in prepared.graph.node] == ["MatMul", "Mul"]
    assert [value.name for value in prepared.graph.input] == ["x", "s"]
    np.testing.assert_array_equal(run(prepared, {"x": x, "s": np.array(7.0, np.float32)})[0], wanted)


def test_the_constant_takes_a_free_name() -> None:
    model = model_from_text("g (float[N,6] x, float s) => (float[N,3] y) { s_setting = Mul(x, s) y = MatMul(s_setting, w) }", {"w": (6, 3)})
    make_constant(model, {"s": np.array(2.0, np.float32)})
    assert list(model.graph.node[0].input) == ["x", "s_setting_"]


def test_both_sets_have_the_same_settings() -> None:
    check_same_settings({"s": np.array(1.0)}, {"s": np.array(1.0)})
    with pytest.raises(InvalidCalibrationSetError, match=r"array 's': 1.0 found in the calibration set and 2.0 in the validation set"):
        check_same_settings({"s": np.array(1.0)}, {"s": np.array(2.0)})
    with pytest.raises(InvalidCalibrationSetError, match="one value for the whole job found in the validation set"):
        check_same_settings({}, {"s": np.array(2.0)})


def test_a_note_shows_the_value() -> None:
    assert note_of("s", np.array(16000)).startswith("input 's' is 16000 for the whole job")
    assert note_of("s", np.arange(9)).startswith("input 's' is [0, 1, 2, 3, 4, 5, ...] for the whole job")
