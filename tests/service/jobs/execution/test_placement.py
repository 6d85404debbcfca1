from __future__ import annotations

from collections.abc import Iterator

import pytest

from calibration.errors import InvalidConfigError
from engine_builder.config.config import config_from_json
from engine_builder.errors import UnsupportedTargetError
from service.database.engine import open_engine
from service.database.members import Member, Members
from service.database.role import Role
from service.jobs.execution.placement import branch_configs, check_place, gpu_queue, gpu_type, placed_on
from tests.postgres_server import PostgresServer


@pytest.fixture
def members(postgres: PostgresServer) -> Iterator[Members]:
    """Workers of two types of GPU, and others."""
    engine = open_engine(postgres.create_database())
    members = Members(engine)
    for name, role, gpu in (("a", Role.GPU, "L4"), ("b", Role.GPU, "RTX 4090"), ("c", Role.CPU, None), ("d", Role.API, None)):
        members.note(Member(name, role, "v1", "node", 1, gpu))
    yield members
    engine.dispose()


def test_one_type_of_gpu_has_one_name() -> None:
    assert gpu_type("NVIDIA GeForce RTX 4090") == gpu_type("rtx 4090") == "RTX 4090"
    assert gpu_type("NVIDIA Something New") == "Something New"
    assert gpu_queue("RTX 4090") == "gpu.RTX 4090"


@pytest.mark.parametrize(
    ("config", "gpu"),
    [
        ({}, None),
        ({"target": "tensorrt-rtx", "gpu": "NVIDIA GeForce RTX 4090"}, "RTX 4090"),
        ({"target": "tensorrt", "gpu": "L4"}, "L4"),
        ({"target": "tensorrt-rtx", "gpu": "RTX 5090"}, None),  # nobody has one: built ahead of time
    ],
)
def test_engines_are_built_where_their_gpu_is(config: dict[str, object], gpu: str | None, members: Members) -> None:
    assert placed_on(config_from_json(config), members) == gpu
    check_place(config_from_json(config), members)


def test_a_job_for_a_gpu_says_for_which(members: Members) -> None:
    with pytest.raises(InvalidConfigError, match="gpu: found none") as caught:
        check_place(config_from_json({"target": "tensorrt"}), members)
    assert caught.value.fix == "Types that workers have: L4, RTX 4090."


def test_a_gpu_that_nobody_has_is_refused_where_engines_are_built_on_it(members: Members) -> None:
    with pytest.raises(UnsupportedTargetError, match="no worker has 'RTX 5090', on which engines of tensorrt are built") as caught:
        check_place(config_from_json({"target": "tensorrt", "gpu": "RTX 5090"}), members)
    assert "worker --role gpu" in str(caught.value.fix)


def test_a_job_for_several_types_has_a_configuration_for_each_by_the_name_that_workers_have() -> None:
    config = config_from_json({"target": "tensorrt", "gpus": ["NVIDIA L4", "rtx 4090"], "threads": 2})
    assert [(one.gpu, one.gpus, one.threads) for one in branch_configs(config)] == [("L4", (), 2), ("RTX 4090", (), 2)]
    assert branch_configs(config_from_json({"target": "tensorrt", "gpu": "L4"})) == ()


def test_a_type_that_is_named_twice_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="two name the type 'L4'"):
        branch_configs(config_from_json({"target": "tensorrt", "gpus": ["NVIDIA L4", "l4"]}))


def test_one_type_and_several_exclude_each_other() -> None:
    with pytest.raises(InvalidConfigError, match="gpus: found L4 beside gpu 'A10'"):
        config_from_json({"target": "tensorrt", "gpus": ["L4"], "gpu": "A10"})


def test_types_of_gpu_are_those_that_a_worker_ever_had(members: Members) -> None:
    members.note(Member("e", Role.GPU, "v1", "node", 1, "L4"))
    assert members.gpus() == {"L4", "RTX 4090"}
