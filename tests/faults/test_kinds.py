"""A few kinds of faults at one seeded moment each; ``make faults`` has them all, at more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.experiment import experiment
from tests.faults.kinds import KINDS, ImpossibleHereError
from tests.faults.server_process import ServerProcess, running

SHORT = (
    "kill -9 of the stage",
    "SIGTERM to the stage",
    "kill -9 of the warm parent",
    "jobs/ read-only",
    "cancel",
    "log of the database lost",
    "kill -9 twice, the second while it starts",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.mark.long
@pytest.mark.parametrize("kind", SHORT)
def test_nothing_is_lost_left_or_run_twice(server: ServerProcess, kind: str) -> None:
    try:
        outcome = experiment(server, kind, seed=1)
    except ImpossibleHereError as error:
        pytest.skip(str(error))
    assert not outcome.is_lost, outcome
    assert outcome.finished_again == (), outcome
    assert outcome.orphans == (), outcome


def test_there_are_twenty_kinds_or_more() -> None:
    assert set(SHORT) <= set(KINDS)
    assert len(KINDS) >= 20
