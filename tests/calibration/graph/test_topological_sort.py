from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.graph.topological_sort import captured_names, sort_nodes
from tests import models
from tests.model_text import ModelMaker, cnn, one_batch, run
from tests.models import AWKWARD

MAKERS = list(AWKWARD.values())


@given(maker=st.sampled_from(MAKERS), data=st.data())
def test_shuffled_nodes_become_a_valid_graph_again(maker: ModelMaker, data: st.DataObject) -> None:
    model = maker()
    nodes = data.draw(st.permutations(list(model.graph.node)))
    del model.graph.node[:]
    model.graph.node.extend(nodes)

    sort_nodes(model.graph)

    onnx.checker.check_model(model)


@pytest.mark.parametrize("maker", MAKERS, ids=AWKWARD)
def test_sorted_graph_is_left_as_it_is(maker: ModelMaker) -> None:
    model = maker()

    assert not sort_nodes(model.graph)
    assert model == maker()


def test_sorting_changes_no_output() -> None:
    model, turned = cnn(), cnn()
    nodes = list(turned.graph.node)[::-1]
    del turned.graph.node[:]
    turned.graph.node.extend(nodes)

    assert sort_nodes(turned.graph)

    feeds = one_batch(model)
    np.testing.assert_array_equal(run(turned, feeds)[0], run(model, feeds)[0])


def test_cycle_is_left_for_the_checker() -> None:
    model = cnn()
    model.graph.node[0].input[0] = "r2"

    sort_nodes(model.graph)

    with pytest.raises(onnx.checker.ValidationError, match="topologically sorted"):
        onnx.checker.check_model(model)


def test_subgraphs_read_names_of_the_graph_around_them() -> None:
    branches = next(node for node in models.if_subgraph().graph.node if node.op_type == "If")

    assert {"h", "b", "x", "w"} <= captured_names(branches)
