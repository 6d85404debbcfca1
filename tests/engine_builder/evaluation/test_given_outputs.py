"""Outputs that no engine can change are told from those that it computes."""

from __future__ import annotations

import pytest

from engine_builder.evaluation.given_outputs import given_outputs
from tests.model_text import model_from_text

BRANCH = """c = Constant<value = bool {1}>()
    z = If(c) <then_branch = a () => (float[M] p) { p = Relu(x) }, else_branch = b () => (float[M] q) { q = Neg(x) }>"""


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ("z = Identity(x)", "is the input 'x' handed through"),
        ("f = Flatten(x) z = Cast<to=1>(f)", "is the input 'x' handed through"),
        ("z = Add(w, w)", "is the same for all samples: no value of an input reaches it"),
        ("s = Shape(x) z = Cast<to=1>(s)", "is the same for all samples: no value of an input reaches it"),
        ("z = Relu(x)", None),
        (BRANCH, None),
    ],
)
def test_what_is_given(nodes: str, words: str | None) -> None:
    model = model_from_text(f"g (float[N,6] x) => (float[N,3] y, float[M] z) {{ y = MatMul(x, w) {nodes} }}", {"w": (6, 3)})
    assert given_outputs(model) == ({} if words is None else {"z": words})
