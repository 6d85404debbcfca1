"""Names as exporters write them, and some that no one would choose: with slashes, colons, spaces, other scripts, or like our own."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.generated.choices import Choices

_STYLES = (
    "{hint}_{number}",
    "/layers.{number}/{hint}/{hint}_output_0",
    "model/block_{number}/{hint}:0",
    "{number}",
    "my {hint} {number}",
    "слой_{number}",
    "{hint}{number}.weight",
    "层{number}",
)
_OURS = ("scale", "zero_point", "quantized", "dequantized", "_rounded", "float32", "from_float32", "to_float32", "Cast", "exact", "stored")


@dataclass
class TensorNames:
    """Hands out tensor names of one style; some look like those that the product makes of a name that is taken."""

    choices: Choices
    style: str = ""
    taken: set[str] = field(default_factory=set)
    last: str = "x"

    def __post_init__(self) -> None:
        self.style = self.choices.of(_STYLES)
        self.likes_ours = self.choices.chance(20)

    def new(self, hint: str) -> str:
        """Return a name that no tensor bears yet."""
        name = self.style.format(hint=hint.lower(), number=len(self.taken))
        if self.likes_ours and self.choices.chance(30):
            name = f"{self.last}_{self.choices.of(_OURS)}"
        if name in self.taken:
            name = f"{name}_{len(self.taken)}"
        self.taken.add(name)
        self.last = name
        return name


@dataclass
class NodeNames:
    """Hands out node names: unique, none at all, unique in each graph only, or the same ones again and again, all of which ONNX allows."""

    choices: Choices
    style: str = ""
    counts: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.style = self.choices.of(
            ("{operator}_{count}", "", "/{operator}_{count}", "a node: {operator} #{count}", "t{count}_scale", "{operator}")
        )

    def new(self, operator: str, depth: int) -> str:
        """Return the next name of a graph this deep inside others."""
        self.counts[depth] = self.counts.get(depth, 0) + 1
        return self.style.format(operator=operator, count=self.counts[depth])
