from __future__ import annotations

import pytest

from service.jobs.execution.queue_pace import CALM_SECONDS, QueuePace


class Queue:
    """Notes what its pace is set to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.set: list[bool] = []
        self.is_away = False

    def set_pace(self, is_brisk: bool) -> None:
        if self.is_away:
            raise ConnectionError
        self.set.append(is_brisk)


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def pace(queue: Queue) -> QueuePace:
    return QueuePace(queue.set_pace, lambda: queue.now)


def test_a_queue_is_brisk_while_jobs_run_and_is_told_so_once(queue: Queue, pace: QueuePace) -> None:
    for _ in range(3):
        pace.saw(is_busy=False)
    assert queue.set == [False]
    for _ in range(3):
        pace.saw(is_busy=True)
    assert queue.set == [False, True]


def test_it_stays_brisk_between_two_jobs_and_is_idle_after(queue: Queue, pace: QueuePace) -> None:
    pace.saw(is_busy=True)
    queue.now += CALM_SECONDS - 0.1
    pace.saw(is_busy=False)
    assert queue.set == [True]
    queue.now += 0.2
    pace.saw(is_busy=False)
    assert queue.set == [True, False]


def test_it_is_set_again_where_another_process_may_have_set_it(queue: Queue, pace: QueuePace) -> None:
    pace.saw(is_busy=True)
    pace.doubt()
    pace.saw(is_busy=True)
    assert queue.set == [True, True]


def test_what_could_not_be_set_is_set_at_the_next_look(queue: Queue, pace: QueuePace) -> None:
    queue.is_away = True
    with pytest.raises(ConnectionError):
        pace.saw(is_busy=True)
    queue.is_away = False
    pace.saw(is_busy=True)
    assert queue.set == [True]
