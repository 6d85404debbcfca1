"""The table of search strategies. A new one is a module beside this one and a row."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from engine_builder.search.strategies.predicted_sequences import PredictedSequences
from engine_builder.search.strategies.strategy import Strategy

STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        "predicted_sequences": PredictedSequences(),
    }
)


def default_strategy() -> Strategy:
    """Return the strategy that jobs are searched by: the first row."""
    return next(iter(STRATEGIES.values()))
