"""One batch through a model that is cut into blocks, to be walked again from block to block for whoever changes something in one of them.

All that is alive between the blocks of a network for large pictures is many times what one block needs. So a pass keeps what the blocks
gave out up to a number of bytes, and a walk runs the others again when their turn comes. A change inside a block goes to the end of the
model through the blocks behind it: of the unchanged tensors these read those that are alive where the block ends, and those of branches
beside it, which the change does not reach. Only the latter are kept throughout.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from calibration.execution.onnxruntime_session import Array, Piece
from calibration.execution.partition import Block, Graph, read_names


@dataclass(frozen=True, slots=True, eq=False)
class TappedBlocks:
    """The blocks of a model, and what goes from one to the next."""

    taps: tuple[Piece | None, ...]  # give out what later blocks read, and what is wanted inside; None: a block that makes nothing
    read_later: tuple[frozenset[str], ...]  # tensors that are read behind each block, or given out by the model
    beside: frozenset[str]  # made in one block, read behind it, and not reached by a change of some layer in an earlier block


def tapped_blocks(graph: Graph, blocks: Sequence[Block], taps: Sequence[Piece | None]) -> TappedBlocks:
    """Return the blocks with what goes from one to the next.

    Args:
        graph: Of the model.
        blocks: They cover its nodes once, in order.
        taps: A session of each.
    """
    read: set[str] = set(graph.outputs)
    later: list[frozenset[str]] = []
    for block in reversed(blocks):
        later.append(frozenset(read))
        read.update(name for node in graph.nodes[block.start : block.stop] for name in read_names(node))
    return TappedBlocks(tuple(taps), tuple(reversed(later)), _beside(graph, blocks))


class FloatPass:
    """One batch through the blocks. Read-only after construction."""

    def __init__(self, blocks: TappedBlocks, given: Mapping[str, Array], outputs: Sequence[str], *, kept_bytes: int) -> None:
        """Run the blocks.

        Args:
            blocks: The model.
            given: Its inputs, and all else that is there before the first block.
            outputs: Tensors to keep for ``ends``.
            kept_bytes: Most bytes of what blocks gave out that are kept; of the largest ones least is kept, as they are as soon made again.
        """
        self._blocks, self._given = blocks, dict(given)
        self._kept: dict[int, dict[str, Array]] = {}
        self._beside: dict[str, Array] = {}
        self.largest_bytes = 0  # of what one block gave out
        alive = self._given
        for index, tap in enumerate(blocks.taps):
            made = {} if tap is None else tap.run(alive)
            self.largest_bytes = max(self.largest_bytes, sum(value.nbytes for value in made.values()))
            self._beside |= {name: value for name, value in made.items() if name in blocks.beside}
            self._keep(index, made, kept_bytes)
            alive = self._alive_behind(index, {**alive, **made})
            del made
        self.ends = {name: alive[name] for name in outputs if name in alive}

    @property
    def held_bytes(self) -> int:
        """Bytes of what the blocks made and is kept."""
        held = {id(value): value.nbytes for made in self._kept.values() for value in made.values()}
        held |= {id(value): value.nbytes for value in (*self._beside.values(), *self.ends.values())}
        return sum(held.values())

    def walk(self) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
        """Yield two sets of tensors for each block: those that are there inside it, and those that a change of it needs behind it."""
        alive = self._given
        for index, tap in enumerate(self._blocks.taps):
            made = self._kept.get(index)
            if made is None:
                made = {} if tap is None else tap.run(alive)
            inside = {**alive, **made}
            alive = self._alive_behind(index, inside)
            yield inside, {**self._beside, **alive}
            del made, inside  # or the next block would run with all of this one there

    def _keep(self, index: int, made: dict[str, Array], most: int) -> None:
        self._kept[index] = made
        sizes = {one: sum(value.nbytes for value in kept.values()) for one, kept in self._kept.items()}
        while sizes and sum(sizes.values()) > most:
            largest = max(sizes, key=sizes.__getitem__)
            del self._kept[largest], sizes[largest]

    def _alive_behind(self, index: int, inside: Mapping[str, Array]) -> dict[str, Array]:
        later = self._blocks.read_later[index]
        return {name: value for name, value in inside.items() if name in later or name in self._given}


def _beside(graph: Graph, blocks: Sequence[Block]) -> frozenset[str]:
    """Return what ``TappedBlocks.beside`` says. Each tensor has the set of layers that reach it, as the bits of a number."""
    own = {unit.layer.output: 1 << place for place, unit in enumerate(graph.units)}
    reached: dict[str, int] = {}
    found: set[str] = set()
    before = 0  # the layers of earlier blocks
    for block in blocks:
        for node in graph.nodes[block.start : block.stop]:
            layers = 0
            for name in read_names(node):
                layers |= reached.get(name, 0)
            reached |= {name: layers | own.get(name, 0) for name in node.output}
        found.update(name for name in graph.piece_outputs(block.start, block.stop) if before & ~reached[name])
        for unit in block.units:
            before |= own[unit.layer.output]
    return frozenset(found)
