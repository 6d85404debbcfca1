from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from calibration.process.worker_threads import in_parallel, processors


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(in_parallel(lambda item: item * item, range(20), 3)) == [item * item for item in range(20)]


def test_an_error_in_a_worker_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_parallel(lambda item: 1 // item, [1, 0, 1], 2))


def test_no_more_items_are_taken_than_are_about_to_be_worked_on() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(50):
            taken.append(item)
            yield item

    results = in_parallel(lambda item: item, items(), 2)
    assert next(results) == 0
    assert len(taken) <= 4


def test_processors_are_those_that_this_process_may_use() -> None:
    assert processors() == len(os.sched_getaffinity(0)) >= 1
