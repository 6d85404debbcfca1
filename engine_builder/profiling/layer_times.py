"""Milliseconds of each layer from those of an engine's kernels, and which layers its kernels do not tell apart.

1. A kernel that runs one layer, with whatever is fused to it, is that layer's.
2. A kernel that runs several is split by their multiply-accumulates; a sum beside a convolution thus gets nothing, as it costs next to
   nothing there. That is a guess where several of them multiply: those layers are not *resolved*, and only engines that differ in them
   tell what each is worth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from calibration.graph.layers import Layer
from engine_builder.backends.kernels import KernelTime

Groups = tuple[tuple[str, ...], ...]


def layer_times(layers: Sequence[Layer], kernels: Sequence[KernelTime]) -> dict[str, float]:
    """Return milliseconds by the name of the layer; 0 for one that no kernel names.

    Args:
        layers: The model's layers.
        kernels: Those of one engine.
    """
    times = dict.fromkeys((layer.name for layer in layers), 0.0)
    for kernel, ran in _run_by(layers, kernels):
        macs = sum(layer.macs for layer in ran)
        for layer in ran:
            times[layer.name] += kernel.milliseconds * (layer.macs / macs if macs else 1 / len(ran))
    return times


def unresolved(layers: Sequence[Layer], kernels: Sequence[KernelTime], least_share: float) -> Groups:
    """Return the groups of layers that multiply and that some kernels run together, each in the order of the layers.

    Args:
        layers: The model's layers.
        kernels: Those of one engine.
        least_share: Of the engine's time: a group whose shared kernels take less is not worth telling apart.
    """
    place = {layer.name: index for index, layer in enumerate(layers)}
    leader = {layer.name: layer.name for layer in layers}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    shared: list[tuple[str, float]] = []
    for kernel, ran in _run_by(layers, kernels):
        multiplying = [layer.name for layer in ran if layer.macs]
        if len(multiplying) > 1:
            first, *others = sorted({find(name) for name in multiplying}, key=place.__getitem__)
            leader.update(dict.fromkeys(others, first))
            shared.append((first, kernel.milliseconds))
    spent: dict[str, float] = {}
    for name, milliseconds in shared:
        spent[find(name)] = spent.get(find(name), 0.0) + milliseconds
    total = sum(kernel.milliseconds for kernel in kernels)
    found = {name: tuple(layer.name for layer in layers if layer.macs and find(layer.name) == name) for name in spent}
    return tuple(found[name] for name in sorted(found, key=place.__getitem__) if spent[name] >= least_share * total)


def parts(groups: Groups, macs: Mapping[str, int], most: int) -> Groups:
    """Return the groups cut into consecutive parts of about equal work, ``most`` parts in all; the parts of one group cover it.

    Groups beyond ``most`` are left out, those with least work first.

    Args:
        groups: Names of layers.
        macs: Multiply-accumulates of each layer, at least 1.
        most: At least 1.
    """
    kept = sorted(groups, key=lambda group: -_work(group, macs))[:most]
    counts = dict.fromkeys(kept, 1)
    for _ in range(most - len(kept)):  # one part more for the group whose parts are largest
        largest = max(
            (group for group in kept if counts[group] < len(group)), key=lambda group: _work(group, macs) / counts[group], default=None
        )
        if largest is None:
            break
        counts[largest] += 1
    return tuple(part for group in groups if group in counts for part in _cut(group, macs, counts[group]))


def _cut(group: Sequence[str], macs: Mapping[str, int], count: int) -> list[tuple[str, ...]]:
    """Return ``count`` consecutive parts, each closed where the work so far reaches its share; none is empty."""
    cut: list[tuple[str, ...]] = []
    part: list[str] = []
    done, total = 0.0, _work(group, macs)
    for index, name in enumerate(group):
        part.append(name)
        done += macs[name]
        left, missing = len(group) - index - 1, count - len(cut) - 1
        if missing and left and (left == missing or done >= total * (len(cut) + 1) / count):
            cut.append(tuple(part))
            part = []
    return [*cut, tuple(part)]


def _work(group: Sequence[str], macs: Mapping[str, int]) -> float:
    return float(sum(macs[name] for name in group))


def _run_by(layers: Sequence[Layer], kernels: Sequence[KernelTime]) -> list[tuple[KernelTime, list[Layer]]]:
    """Return each kernel that runs any layer with those layers, in their order."""
    owner = {name: index for index, layer in enumerate(layers) for name in (*layer.nodes, layer.output)}
    found = ((kernel, sorted({owner[name] for name in kernel.names if name in owner})) for kernel in kernels)
    return [(kernel, [layers[index] for index in ran]) for kernel, ran in found if ran]
