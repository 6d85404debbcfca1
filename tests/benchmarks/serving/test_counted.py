from __future__ import annotations

from benchmarks.serving.__main__ import counted


def test_long_lists_become_counts_and_all_else_stays() -> None:
    many = [0.00104] * 70 + [0.00212] * 50
    values = {"polls": [{"per_second": 200.0, "seconds": many}], "alone_seconds": [8.4, 8.5], "size": 3, "name": "a" * 200}
    assert counted(values) == {
        "polls": [{"per_second": 200.0, "seconds": {"0.001": 70, "0.0021": 50}}],
        "alone_seconds": [8.4, 8.5],
        "size": 3,
        "name": "a" * 200,
    }
