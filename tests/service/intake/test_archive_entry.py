"""What a name may be."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.errors import InvalidModelError
from service.intake.archive_entry import MAX_DEPTH, MAX_NAME_BYTES, MAX_PART_BYTES, safe_name


@given(st.text(alphabet=st.one_of(st.sampled_from("./\\:~ ab\0\n\u202e\ud800"), st.characters()), max_size=60))
def test_name_that_is_accepted_stays_inside_and_can_be_seen(name: str) -> None:
    try:
        path = safe_name(name)
    except InvalidModelError:
        return
    assert path.parts
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert "\n" not in name
    name.encode()  # no half of a surrogate pair


@pytest.mark.parametrize(
    "name", ["model.onnx", "a/b/weights.bin", "./model.onnx", "Gewichte für Ä.bin", "重み.bin", "a b/c+d,e=f.bin", ".hidden"]
)
def test_usual_names_are_accepted(name: str) -> None:
    assert safe_name(name) == PurePosixPath(name)


def test_limits_are_exact() -> None:
    safe_name("d/" * MAX_DEPTH + "x")
    safe_name("x" * MAX_PART_BYTES)
    safe_name("/".join(["x" * 200] * 5))
    for name in ("d/" * (MAX_DEPTH + 1) + "x", "x" * (MAX_PART_BYTES + 1), "/".join(["x" * (MAX_NAME_BYTES // 4)] * 5), "é" * 200):
        with pytest.raises(InvalidModelError):
            safe_name(name)


def test_message_about_a_long_name_is_short() -> None:
    with pytest.raises(InvalidModelError) as caught:
        safe_name("x" * 100_000)
    assert len(caught.value.detail) < 500
