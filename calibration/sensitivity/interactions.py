r"""Dependencies between layers: how much more (or less) two layers cost together than each alone.

The Gram screen (layer_losses.py) gives every pair at no extra forward: D_ij ~ 2 G_ij. Where that matters most, or is least certain, an
exact pair test measures D_ij = L(i and j) - L(i) - L(j) on the same samples (arXiv 2306.04879 tests every pair). Two layers that read or
write the same rounded tensor are tested first: the tensor is rounded once in the engine, while the screen counts its error twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.execution.onnxruntime_session import Array
from calibration.graph.layers import Layer
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Scheme
from calibration.process.worker_threads import in_parallel
from calibration.sensitivity.adaptive_sampling import within_reach
from calibration.sensitivity.layer_losses import LayerLosses
from calibration.sensitivity.perturbed_model import Pass, Probe, ReferenceModel
from calibration.sensitivity.records import PairTest
from calibration.sensitivity.simulated_layers import Floats
from calibration.sensitivity.task_losses import Comparison, LossForm

LEAST_SHARE = 0.002  # of what the budget allows, that a pair could lose at the most: the smaller ones are not tested


@dataclass(frozen=True, slots=True, eq=False)
class DependencyMatrix:
    """Interaction of every pair: exact where tested, twice the Gram entry elsewhere.

    ``interaction`` and ``error``: (layer precisions, layer precisions) float64, symmetric, zero on the diagonal. ``shares``: the same
    shape, true for the pairs that read or write one rounded tensor; None where that is not known.
    """

    layer_precisions: tuple[LayerPrecision, ...]
    interaction: NDArray[np.float64]
    error: NDArray[np.float64]
    tests: tuple[PairTest, ...]
    shares: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        """Check the shape."""
        if self.interaction.shape != (len(self.layer_precisions),) * 2:
            raise ValueError(f"interaction has shape {self.interaction.shape} for {len(self.layer_precisions)} layer precisions")


def dependency_matrix(layer_losses: LayerLosses, tests: Sequence[PairTest], shares: NDArray[np.bool_] | None = None) -> DependencyMatrix:
    """Return the interactions that the screen and the exact tests give together.

    Every screened entry counts, significant or not: those that are small one by one add up to much of the loss of a whole assignment. A few
    samples lose most, so a test of fewer samples than the losses alone is brought to their level: by what the two layers lose on all of the
    samples over what they lose on those of the test, the first ones.

    Args:
        layer_losses: The screen.
        tests: The exact tests.
        shares: ``sharing_pairs``.
    """
    error = 2.0 * layer_losses.gram_error
    interaction = 2.0 * layer_losses.gram
    place = {layer_precision: index for index, layer_precision in enumerate(layer_losses.layer_precisions)}
    usual = layer_losses.mean
    for test in tests:
        i, j = place[test.first], place[test.second]
        here = float(layer_losses.loss[: test.samples, [i, j]].sum(axis=1).mean())
        level = float(usual[i] + usual[j]) / here if here > 0.0 else 1.0
        interaction[i, j] = interaction[j, i] = test.dependency * level
        error[i, j] = error[j, i] = test.error * level
    np.fill_diagonal(interaction, 0.0)
    np.fill_diagonal(error, 0.0)
    return DependencyMatrix(layer_losses.layer_precisions, interaction, error, tuple(tests), shares)


def sharing_pairs(layer_precisions: Sequence[LayerPrecision], layers: Sequence[Layer], scheme: Scheme) -> NDArray[np.bool_]:
    """Return which pairs of layer precisions, of different layers, read or write one rounded tensor, (layer precisions, ...) squared.

    Args:
        layer_precisions: In the order of the result.
        layers: All layers.
        scheme: How the target quantizes.
    """
    rounded = {layer.name: {*layer.inputs, *((layer.output,) if layer.op_type in scheme.quantized_outputs else ())} for layer in layers}
    names = [layer_precision.layer for layer_precision in layer_precisions]
    found = [[a != b and bool(rounded[a] & rounded[b]) for b in names] for a in names]
    return np.array(found, dtype=bool).reshape(len(names), len(names))


def pairs_to_test(
    layer_losses: LayerLosses, layers: Sequence[Layer], scheme: Scheme, budget: int, allowed: float | None = None
) -> tuple[tuple[LayerPrecision, LayerPrecision], ...]:
    """Return at most ``budget`` pairs worth an exact test, each in graph order.

    First the pairs that share a rounded tensor, then those whose screened effect, or whose uncertainty about it, is largest.

    Args:
        layer_losses: The screen.
        layers: All layers, in graph order.
        scheme: How the target quantizes.
        budget: Pairs at the most.
        allowed: Loss that the accuracy budget allows; then pairs that no engine inside it can have, and those that together cannot lose a
            share of it that matters, are left out, and the budget is less by the share of layer precisions out of reach. None: not known.
    """
    place = {layer.name: index for index, layer in enumerate(layers)}
    shares = sharing_pairs(layer_losses.layer_precisions, layers, scheme)
    weight = np.maximum(np.abs(2.0 * layer_losses.gram), 2.0 * (2.0 * layer_losses.gram_error))
    near, least = frozenset(layer_losses.layer_precisions), 0.0
    if allowed is not None and layer_losses.counts.min() > 1:
        near = within_reach(dict(zip(layer_losses.layer_precisions, map(tuple, layer_losses.levelled), strict=True)), allowed)
        least, budget = LEAST_SHARE * allowed, -(-budget * len(near) // len(layer_losses.layer_precisions))
    size = np.sqrt(2.0 * layer_losses.mean)  # of a pair's interaction: at most 2 sqrt(h_i h_j)
    candidates = []
    for i, a in enumerate(layer_losses.layer_precisions):
        for j, b in enumerate(layer_losses.layer_precisions[:i]):
            if a.layer != b.layer and a in near and b in near and size[i] * size[j] >= least:
                first, second = sorted((a, b), key=lambda layer_precision: place[layer_precision.layer])
                candidates.append((not shares[i, j], -float(weight[i, j]), first, second))
    return tuple((first, second) for _, _, first, second in sorted(candidates)[:budget])


def measure_pairs(
    reference: ReferenceModel,
    kinds: Sequence[LossForm],
    layers: Sequence[Layer],
    pairs: Sequence[tuple[LayerPrecision, LayerPrecision]],
    batches: Sequence[Mapping[str, Array]],
    loss_alone: Mapping[LayerPrecision, NDArray[np.float64]],
    *,
    weights: Sequence[float] = (),
    workers: int = 1,
    on_batch: Callable[[int], None] = lambda done: None,
) -> tuple[PairTest, ...]:
    """Test pairs exactly.

    Args:
        reference: The float model in pieces.
        kinds: Kind of each output, or its parts.
        layers: All layers.
        pairs: What to test, each in graph order.
        batches: The feeds of each batch.
        loss_alone: Loss of each layer precision alone on the first of these samples, whole batches: a pair is tested on those of both.
        weights: Of each output, as for ``Comparison``; none: all weigh the same.
        workers: Tests in flight at once at most, all of one batch.
        on_batch: Told the number of batches done.
    """
    known = [min(len(loss_alone[one]) for one in pair) for pair in pairs]
    found = pair_losses(reference, kinds, layers, pairs, batches, known, weights=weights, workers=workers, on_batch=on_batch)
    return pair_tests(pairs, found, loss_alone)


def pair_losses(
    reference: ReferenceModel,
    kinds: Sequence[LossForm],
    layers: Sequence[Layer],
    pairs: Sequence[tuple[LayerPrecision, LayerPrecision]],
    batches: Sequence[Mapping[str, Array]],
    known: Sequence[int],
    *,
    first: int = 0,
    weights: Sequence[float] = (),
    workers: int = 1,
    on_batch: Callable[[int], None] = lambda done: None,
) -> NDArray[np.float64]:
    """Return the loss of each pair on each sample, (samples, pairs) float64, NaN where it is not tested.

    Args:
        reference: The float model in pieces.
        kinds: Kind of each output, or its parts.
        layers: All layers.
        pairs: What to test, each in graph order.
        batches: The feeds of each batch.
        known: The samples, of all, that the losses of both layers of each pair alone are known on: the first so many.
        first: The place of the first sample of these batches among all.
        weights: As above, like ``workers`` and ``on_batch``.
        workers: Tests in flight at once.
        on_batch: Told the number of batches done.
    """
    by_name = {layer.name: layer for layer in layers}
    wanted: dict[str, list[int]] = {}
    for index, (one, _) in enumerate(pairs):
        wanted.setdefault(one.layer, []).append(index)
    reference.open_quantized((layer_precision.layer, layer_precision.precision) for pair in pairs for layer_precision in pair)
    reference.open_pairs((by_name[one.layer], by_name[other.layer]) for one, other in pairs)

    parts: list[NDArray[np.float64]] = []
    for batch in batches:
        run = reference.begin(batch)
        compare = Comparison(kinds, run.outputs, weights)
        loss = np.full((run.samples, len(pairs)), np.nan)
        stop = first + sum(map(len, parts)) + run.samples

        def tests(run: Pass = run, stop: int = stop) -> Iterator[tuple[int, Probe, Floats]]:
            for probe in run.probes():
                here = [index for index in wanted.get(probe.layer.name, []) if stop <= known[index]]
                alone = {precision: probe.quantized_output(precision) for precision in {pairs[index][0].precision for index in here}}
                yield from ((index, probe, alone[pairs[index][0].precision]) for index in here)

        def measure(test: tuple[int, Probe, Floats], compare: Comparison = compare) -> tuple[int, NDArray[np.float64]]:
            index, probe, alone = test
            second = pairs[index][1]
            return index, compare.losses(probe.outputs_with(alone, by_name[second.layer], second.precision))

        for index, losses in in_parallel(measure, tests(), run.at_once(workers)):
            loss[:, index] = losses
        parts.append(loss)
        del run, compare, measure, tests  # or the activations of two passes would be there at once
        on_batch(len(parts))
    return np.concatenate(parts)


def pair_tests(
    pairs: Sequence[tuple[LayerPrecision, LayerPrecision]],
    together: NDArray[np.float64],
    loss_alone: Mapping[LayerPrecision, NDArray[np.float64]],
) -> tuple[PairTest, ...]:
    """Return the tests of pairs.

    Args:
        pairs: What was tested.
        together: Its losses, (samples, pairs), see ``pair_losses``.
        loss_alone: As for ``measure_pairs``.
    """
    known = [min(len(loss_alone[one]) for one in pair) for pair in pairs]
    found = []
    for index, (first, second) in enumerate(pairs):
        tested = together[: known[index], index]
        extra = tested - loss_alone[first][: len(tested)] - loss_alone[second][: len(tested)]
        error = float(extra.std(ddof=1) / np.sqrt(len(extra))) if len(extra) > 1 else float("inf")
        found.append(PairTest(first, second, float(extra.mean()), error, len(extra)))
    return tuple(found)
