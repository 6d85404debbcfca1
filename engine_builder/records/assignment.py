"""Precision assignments: which precision each layer takes."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from calibration.number_formats.precision import Precision

FINGERPRINT_LENGTH = 16


@dataclass(frozen=True, slots=True)
class PrecisionAssignment(Mapping[str, Precision]):
    """A precision for every layer, by layer name.

    Immutable and sorted by name: equal assignments have equal JSON and equal fingerprints, in whatever order they were made.
    """

    choices: tuple[tuple[str, Precision], ...]

    def __post_init__(self) -> None:
        """Sort, and refuse a layer that is named twice."""
        ordered = tuple(sorted((name, Precision(precision)) for name, precision in self.choices))
        for (name, _), (following, _) in itertools.pairwise(ordered):
            if name == following:
                raise ValueError(f"layer {name!r} has two precisions")
        object.__setattr__(self, "choices", ordered)

    @classmethod
    def uniform(cls, names: Iterable[str], precision: Precision) -> PrecisionAssignment:
        """Return the assignment that gives every layer the same precision."""
        return cls(tuple((name, precision) for name in names))

    @classmethod
    def from_json(cls, data: object) -> PrecisionAssignment:
        """Return the assignment that ``as_json`` wrote.

        Raises:
            TypeError: Not an object.
            ValueError: A value that is no precision.
        """
        if not isinstance(data, Mapping):
            raise TypeError(f"assignment: expected an object of layer names and precisions, found {type(data).__name__}")
        return cls(tuple((str(name), Precision(precision)) for name, precision in data.items()))

    def as_json(self) -> dict[str, str]:
        """Return {layer name: precision}, sorted by name."""
        return {name: precision.value for name, precision in self.choices}

    def with_quantized(self, names: Iterable[str], precision: Precision) -> PrecisionAssignment:
        """Return the assignment in which these layers take ``precision`` and all others keep theirs.

        Raises:
            KeyError: A layer that this assignment does not have.
        """
        changed = set(names)
        unknown = changed.difference(name for name, _ in self.choices)
        if unknown:
            raise KeyError(f"layers {sorted(unknown)} are not in the assignment")
        return PrecisionAssignment(tuple((name, precision if name in changed else kept) for name, kept in self.choices))

    def counts(self) -> dict[Precision, int]:
        """Return how many layers have each precision; only precisions that occur, most bits first."""
        found = Counter(precision for _, precision in self.choices)
        return {precision: found[precision] for precision in sorted(found, key=lambda item: (-item.bits, item.value))}

    @property
    def fingerprint(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the canonical JSON."""
        canonical = json.dumps(self.as_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:FINGERPRINT_LENGTH]

    def __getitem__(self, name: str) -> Precision:
        """Return the precision of a layer."""
        for known, precision in self.choices:
            if known == name:
                return precision
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        """Iterate over layer names, sorted."""
        return (name for name, _ in self.choices)

    def __len__(self) -> int:
        """Return the number of layers."""
        return len(self.choices)


def folded_fingerprint(baseline: str) -> str:
    """Return the fingerprint of the folded float model, which has the baseline's assignment and is another engine.

    Args:
        baseline: The fingerprint of the baseline.
    """
    return hashlib.sha256(f"folded {baseline}".encode()).hexdigest()[:FINGERPRINT_LENGTH]


def corrected_fingerprint(uncorrected: str) -> str:
    """Return the fingerprint of an engine whose layers got corrections after one of the same assignment was tried without them.

    Args:
        uncorrected: The fingerprint of the assignment.
    """
    return hashlib.sha256(f"corrected {uncorrected}".encode()).hexdigest()[:FINGERPRINT_LENGTH]


def fingerprint_of(layers: Iterable[str], quantized: Mapping[str, Precision], baseline: Precision) -> str:
    """Return the fingerprint of the assignment with ``quantized`` and every other layer in ``baseline``."""
    return PrecisionAssignment(tuple((name, quantized.get(name, baseline)) for name in layers)).fingerprint
