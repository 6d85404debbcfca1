from __future__ import annotations

import pytest

from service.access.caller import ENVIRONMENT, Caller, Role, check_tenant


def test_each_role_may_do_what_those_before_it_may() -> None:
    assert [[one.includes(other) for other in Role] for one in Role] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


def test_admins_see_all_tenants_and_others_their_own() -> None:
    assert Caller("k", "vision", Role.SUBMIT).sees == "vision"
    assert ENVIRONMENT.sees is None


@pytest.mark.parametrize("name", ["a", "default", "Team-7", "a_c", "x.y", "9" * 63])
def test_names_of_tenants(name: str) -> None:
    assert check_tenant(name) == name
