from __future__ import annotations

import numpy as np
import pytest

from engine_builder.search.descents.set_sums import SetSums

SETS = ((0,), (3, 1), (0, 1, 2, 3), (2,))


@pytest.mark.parametrize("is_dense", [False, True, None])
def test_they_are_the_sums_of_each_set(is_dense: bool | None) -> None:
    sums = SetSums(SETS, 5, is_dense=is_dense)
    values = np.random.default_rng(0).normal(size=(2, 3, 5))
    own = np.random.default_rng(1).normal(size=(5, len(SETS)))
    expected = np.stack([values[..., list(one)].sum(axis=-1) for one in SETS], axis=-1)
    np.testing.assert_allclose(sums.of(values), expected, atol=1e-12)  # added up in another order
    np.testing.assert_allclose(sums.of_own(own), [own[list(one), index].sum() for index, one in enumerate(SETS)], atol=1e-12)


def test_members_are_the_layers_of_each_set() -> None:
    assert [tuple(np.flatnonzero(column)) for column in SetSums(SETS, 5).members().T] == [tuple(sorted(one)) for one in SETS]


@pytest.mark.parametrize(("layers", "is_dense"), [(10, True), (60_001, False)])
def test_a_large_matrix_is_not_kept(layers: int, is_dense: bool) -> None:
    assert SetSums([(0,)], layers).is_dense is is_dense
