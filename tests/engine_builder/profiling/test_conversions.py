from __future__ import annotations

import pytest

from engine_builder.backends.kernels import KernelTime
from engine_builder.profiling.conversions import step_of, step_times
from engine_builder.search.times.layouts import Step


def kernel(operator: str, reads: str = "float", milliseconds: float = 1.0, elements: int = 100) -> KernelTime:
    return KernelTime((operator,), milliseconds, operator, reads, elements)


@pytest.mark.parametrize(
    ("operator", "reads", "expected"),
    [
        ("QuantizeLinear", "float", Step.QUANTIZE),
        ("DequantizeLinear", "uint8", Step.DEQUANTIZE),
        ("ReorderInput", "float", Step.BLOCK),
        ("ReorderOutput", "float", Step.UNBLOCK),
        ("Transpose", "uint8", Step.TRANSPOSE),
        ("Transpose", "float", None),  # the model's own
        ("Conv", "float", None),
    ],
)
def test_a_conversion_is_known_by_its_operator(operator: str, reads: str, expected: Step | None) -> None:
    assert step_of(kernel(operator, reads)) is expected


def test_times_are_by_kind_and_size_and_of_equal_ones_the_median() -> None:
    first = [kernel("QuantizeLinear", milliseconds=one) for one in (1.0, 2.0, 9.0)]
    second = [kernel("QuantizeLinear", milliseconds=30.0, elements=1000), kernel("Conv", milliseconds=7.0)]
    found = step_times([first, second])
    assert found.seen == {Step.QUANTIZE: ((100, 2.0), (1000, 30.0))}
