"""Which part of a model each kernel of an engine belongs to: a layer, or a node that is no layer.

1. A kernel that names a node, or a tensor that a node writes, is that node's; a layer's nodes are one site.
2. A conversion (``conversions.STEP_OF``) is no site's.
3. A kernel without a known name is a fusion of nodes that no kernel names (an addition and the normalization behind it). It is the
   largest connected region of those that can be computed once the kernels before it have run; its time is that of the first layer in there,
   or else of the first node.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx

from calibration.graph.layers import Layer
from engine_builder.backends.kernels import KernelTime
from engine_builder.profiling.conversions import step_of


@dataclass(frozen=True, slots=True)
class Around:
    """The layers next to a site, with nothing but nodes that are no layers in between."""

    above: tuple[str, ...]
    below: tuple[str, ...]


class GraphSites:
    """The sites of one model, each by its layer's or its node's name."""

    def __init__(self, model: onnx.ModelProto, layers: Sequence[Layer]) -> None:
        """Read the graph.

        Args:
            model: The prepared model.
            layers: Its layers.
        """
        layer_of = {node: layer.name for layer in layers for node in layer.nodes}
        self.layers = tuple(layer.name for layer in layers)
        self._layers = frozenset(self.layers)
        nodes = [node for node in model.graph.node if node.name]
        self._site_of_node = {node.name: layer_of.get(node.name, node.name) for node in nodes}
        self._site_of = dict(self._site_of_node)
        self._site_of.update({output: self._site_of_node[node.name] for node in nodes for output in node.output if output})
        writer = {output: self._site_of_node[node.name] for node in nodes for output in node.output if output}
        self._reads: dict[str, tuple[str, ...]] = {}
        for node in nodes:
            site = self._site_of_node[node.name]
            found = dict.fromkeys(writer[name] for name in node.input if name in writer and writer[name] != site)
            self._reads[site] = tuple(dict.fromkeys((*self._reads.get(site, ()), *found)))
        self._members = {site: [name for name, of in self._site_of_node.items() if of == site] for site in self._reads}
        self.around = self._arounds()

    def times(self, kernels: Sequence[KernelTime]) -> dict[str, float]:
        """Return milliseconds by site; 0 for one that no kernel of its own runs.

        Args:
            kernels: Those of one engine, in the order in which they run.
        """
        found = dict.fromkeys(self._reads, 0.0)
        sites = [self._site(kernel) for kernel in kernels]
        left = set(self._reads) - set(sites)
        ran: set[str] = set()
        for kernel, named in zip(kernels, sites, strict=True):
            if step_of(kernel) is not None:
                continue
            region = self._ready(left, ran) if named is None else (named,)
            if region:
                found[next((site for site in region if site in self._layers), region[0])] += kernel.milliseconds
                left.difference_update(region)
                ran.update(region)
        return found

    def _site(self, kernel: KernelTime) -> str | None:
        return next((self._site_of[name] for name in kernel.names if name in self._site_of), None)

    def _ready(self, left: Collection[str], ran: Collection[str]) -> tuple[str, ...]:
        """Return the largest connected region of sites that are left and can be computed from what ran, in topological order."""
        leader: dict[str, str] = {}

        def find(site: str) -> str:
            while leader[site] != site:
                site = leader[site]
            return site

        for site, reads in self._reads.items():
            if site in left and all(other in ran or other in leader for other in reads):
                leader[site] = site
                for other in reads:
                    if other in leader:
                        leader[find(site)] = find(other)
        regions: dict[str, list[str]] = {}
        for site in leader:
            regions.setdefault(find(site), []).append(site)
        return tuple(max(regions.values(), key=lambda region: sum(len(self._members[site]) for site in region), default=()))

    def _arounds(self) -> dict[str, Around]:
        order = list(self._reads)
        readers: dict[str, list[str]] = {site: [] for site in order}
        for site in order:
            for other in self._reads[site]:
                readers[other].append(site)
        above = self._nearest(order, self._reads)
        below = self._nearest(order[::-1], readers)
        return {site: Around(above[site], below[site]) for site in order}

    def _nearest(self, order: Sequence[str], towards: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for site in order:
            passed = [(other,) if other in self._layers else found.get(other, ()) for other in towards[site]]
            found[site] = tuple(dict.fromkeys(layer for layers in passed for layer in layers if layer != site))
        return found
