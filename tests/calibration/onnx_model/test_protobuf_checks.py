from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.errors import InvalidModelError
from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare
from calibration.onnx_model.model_io import input_specs, output_specs, read_model
from calibration.onnx_model.protobuf_checks import check_data, check_wellformed
from tests import models
from tests.model_text import cnn
from tests.models import AWKWARD

DAMAGED = "The file is damaged: export or copy the model again."
DAMAGE = st.lists(st.tuples(st.integers(0, 99_999), st.integers(0, 255)), min_size=1, max_size=5)  # bytes by place, modulo the length


def test_name_that_is_no_text_is_refused() -> None:
    model = models.odd_names()
    data = model.SerializeToString().replace("ünï.code".encode(), b"\xff\xfe" + b"ni.codes")

    with pytest.raises(InvalidModelError) as caught:
        check_wellformed(onnx.load_model_from_string(data))

    assert "is not UTF-8 text: b'\\xff\\xfeni.codes'" in caught.value.detail
    assert caught.value.fix == DAMAGED


def test_name_that_is_too_long_is_refused_in_a_short_message() -> None:
    model = cnn()
    model.doc_string = "a description " * 1000
    check_wellformed(model)
    model.graph.node[0].op_type = "A" * 20_000_000
    with pytest.raises(InvalidModelError, match=r"NodeProto.op_type has 20000000 characters, at most 2000 expected") as caught:
        check_wellformed(model)
    assert len(caught.value.detail) < 300


def test_element_type_that_does_not_exist_is_refused() -> None:
    model = cnn()
    model.graph.input[0].type.tensor_type.elem_type = 61

    with pytest.raises(InvalidModelError) as caught:
        check_wellformed(model)

    assert caught.value.detail == "model: Tensor.elem_type is 61, which is no element type"


@pytest.mark.parametrize(
    ("tensor", "detail"),
    [
        (
            onnx.TensorProto(name="w", data_type=1, dims=[3], float_data=[1.0, 2.0]),
            "tensor 'w': 2 elements found, 3 expected for shape [3]",
        ),
        (onnx.TensorProto(name="w", data_type=1, dims=[3], raw_data=bytes(8)), "tensor 'w': 8 bytes found, 12 expected for shape [3]"),
        (onnx.TensorProto(data_type=7, dims=[2]), "tensor without a name: 0 elements found, 2 expected for shape [2]"),
        (onnx.TensorProto(name="w", data_type=1, dims=[-3]), "tensor 'w': negative dimension in [-3]"),
    ],
)
def test_tensor_of_a_wrong_size_is_refused(tensor: onnx.TensorProto, detail: str) -> None:
    with pytest.raises(InvalidModelError) as caught:
        check_data(tensor)

    assert (caught.value.detail, caught.value.fix) == (detail, DAMAGED)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")  # numpy's, on numbers that damage made huge
def test_damaged_file_is_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    outcomes: Counter[str] = Counter()

    @settings(max_examples=120, deadline=None)  # one in seven is read: that none is happens once in a hundred million runs
    @given(st.sampled_from([maker().SerializeToString() for maker in AWKWARD.values()]), DAMAGE)
    def law(data: bytes, damage: list[tuple[int, int]]) -> None:
        damaged = bytearray(data)
        for place, value in damage:
            damaged[place % len(damaged)] = value
        path.write_bytes(damaged)
        outcomes[outcome(path)] += 1

    law()
    assert outcomes["read"] > 0
    assert outcomes["refused"] > 0


def outcome(path: Path) -> str:
    """Return what becomes of a file: it is read and its layers are found, or it is refused; any other error is the test's to report."""
    try:
        model = read_model(path)
        input_specs(model)
        output_specs(model)
        find_layers(prepare(model).model)
    except InvalidModelError:
        return "refused"
    return "read"
