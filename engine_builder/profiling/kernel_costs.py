"""What the profiles of a few engines say of any engine of the same model.

Profiles are taken one after another on a machine that may be busy, and the profiler's own time goes into every kernel. So each profile is
brought to the ratio that its engine was timed at, against the baseline's profile:

    scale_i * (sum of kernels_i - delta * number of kernels_i) = ratio_i * (sum of kernels_0 - delta * number of kernels_0)

with one delta for all, from least squares with every scale at 1, between 0 and ``MOST_OF_PROFILER``. An engine that was not timed has the
scale 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.backends.kernels import KernelTime
from engine_builder.profiling.conversions import step_times
from engine_builder.profiling.graph_sites import GraphSites
from engine_builder.search.search_space import QuantizedLayers
from engine_builder.search.time_model import TensorEdge
from engine_builder.search.times.borders import Border, border_term
from engine_builder.search.times.kernel_sites import Corner, NeighbourTerm, SiteTerm, corner_shares
from engine_builder.search.times.learned_times import KernelCosts

MOST_OF_PROFILER = 0.004  # milliseconds of a kernel


@dataclass(frozen=True, slots=True)
class Profile:
    """The kernels of an engine, in the order in which they run."""

    quantized: QuantizedLayers
    ratio: float | None  # of the baseline's latency, as it was timed; None: it was not
    kernels: tuple[KernelTime, ...]


def kernel_costs(profiles: Sequence[Profile], sites: GraphSites, borders: Sequence[Border], edges: Sequence[TensorEdge]) -> KernelCosts:
    """Return what the profiles say.

    Args:
        profiles: The baseline's first; a layer precision that none of the others has is left out.
        sites: Of the model.
        borders: Its tensors between layers, in layouts.
        edges: The same, for moves.
    """
    scaled = _scaled(profiles)
    times = [sites.times(profile.kernels) for profile in scaled]
    lows = [frozenset(profile.quantized) for profile in scaled]
    own: dict[str, dict[Precision | None, list[float]]] = {layer: {} for layer in sites.layers}
    for profile, found in zip(scaled, times, strict=True):
        for layer in sites.layers:
            own[layer].setdefault(profile.quantized.get(layer), []).append(found[layer])
    # The uniform engines say what a layer gains; where none has a layer in some precision, all others do.
    gains = {}
    for layer, by_precision in own.items():
        for precision, spent in by_precision.items():
            if precision is not None:
                gains[LayerPrecision(layer, precision)] = times[0][layer] - spent[0]
    steps = step_times(profile.kernels for profile in scaled)
    return KernelCosts(
        sum(kernel.milliseconds for kernel in scaled[0].kernels),
        gains,
        tuple(edges),
        tuple(border_term(border, steps) for border in borders),
        _others(sites, times, lows),
        _neighbours(sites, times, lows),
    )


def _scaled(profiles: Sequence[Profile]) -> list[Profile]:
    """Return the profiles with their kernels brought to the ratios at which the engines were timed."""
    sums = np.array([sum(kernel.milliseconds for kernel in profile.kernels) for profile in profiles])
    counts = np.array([float(len(profile.kernels)) for profile in profiles])
    timed = [index for index, profile in enumerate(profiles) if profile.ratio is not None]
    ratios = np.array([1.0 if profile.ratio is None else profile.ratio for profile in profiles])
    more, of = (sums - ratios * sums[0])[timed], (counts - ratios * counts[0])[timed]
    most = min(MOST_OF_PROFILER, 0.5 * float(np.min(sums / counts)))
    delta = float(np.clip(more @ of / (of @ of), 0.0, most)) if of @ of > 0.0 else 0.0
    found = []
    for profile, ratio in zip(profiles, ratios, strict=True):
        spent = [max(kernel.milliseconds - delta, 0.0) for kernel in profile.kernels]
        scale = 1.0 if profile.ratio is None else ratio * (sums[0] - delta * counts[0]) / sum(spent)
        kernels = tuple(replace(kernel, milliseconds=one * scale) for kernel, one in zip(profile.kernels, spent, strict=True))
        found.append(replace(profile, kernels=kernels))
    return found


def _others(sites: GraphSites, times: Sequence[Mapping[str, float]], lows: Sequence[frozenset[str]]) -> tuple[SiteTerm, ...]:
    found = []
    for site, around in sites.around.items():
        if site in sites.layers or not (around.above or around.below) or not any(one[site] for one in times):
            continue
        seen: dict[Corner, list[float]] = {}
        for one, low in zip(times, lows, strict=True):
            above, below = corner_shares(around.above, around.below, low)
            if {above, below} <= {0.0, 1.0}:
                seen.setdefault((above == 1.0, below == 1.0), []).append(one[site])
        corners = {corner: float(np.mean(spent)) for corner, spent in seen.items()}
        found.append(SiteTerm(around.above, around.below, corners))
    return tuple(found)


def _neighbours(sites: GraphSites, times: Sequence[Mapping[str, float]], lows: Sequence[frozenset[str]]) -> tuple[NeighbourTerm, ...]:
    """Return what layers take longer between others, by least squares through 0 in the share of neighbours that are not as they are."""
    uniform = {bool(low): one for one, low in zip(times, lows, strict=True) if not low or len(low) == len(sites.layers)}
    found = []
    for layer in sites.layers:
        around = tuple(dict.fromkeys((*sites.around[layer].above, *sites.around[layer].below)))
        sums = {False: [0.0, 0.0], True: [0.0, 0.0]}
        for one, low in zip(times, lows, strict=True):
            is_low = layer in low
            if around and is_low in uniform:
                share = sum((other in low) != is_low for other in around) / len(around)
                sums[is_low][0] += share * (one[layer] - uniform[is_low][layer])
                sums[is_low][1] += share * share
        longer = {is_low: top / bottom if bottom else 0.0 for is_low, (top, bottom) in sums.items()}
        if any(longer.values()):
            found.append(NeighbourTerm(layer, around, longer[False], longer[True]))
    return tuple(found)
