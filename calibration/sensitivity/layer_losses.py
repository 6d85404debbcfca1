r"""Quantization-loss probes: one layer at a time in a low precision, and the Gram matrix of what that does to the outputs.

For layer precision i (a layer in a precision), e_i is the whitened difference of the outputs (losses.py). From the same forwards come

* h_i = E[loss with only i quantized], measured, and
* G_ij = E[e_i'e_j], whose diagonal is h_i to second order and whose off-diagonal is half the interaction of i and j:
  loss(i and j) ~ h_i + h_j + 2 G_ij.

Layer precisions may be probed on fewer samples than others, always the first ones (adaptive_sampling.py). Samples differ in how much
anything does to their outputs, so what the first samples say is brought to the level of all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.metrics import OutputKind
from calibration.execution.onnxruntime_session import Array
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.process.worker_threads import in_parallel
from calibration.sensitivity.adaptive_sampling import on_one_level
from calibration.sensitivity.perturbed_model import Probe, ReferenceModel
from calibration.sensitivity.task_losses import Comparison, LossForm

T = TypeVar("T")

TOGETHER = 4  # at most so many probes are compared with the float model at once: small arrays cost as much as ones four times the size
TOGETHER_BYTES = 1 << 18  # of their outputs


@dataclass(frozen=True, slots=True, eq=False)
class LayerLosses:
    """What the probes of single layer precisions found.

    ``loss``: (samples, layer precisions) float64, loss of each sample, NaN on those that a layer precision was not probed on.
    ``gram_sum`` and ``gram_square_sum``: (layer precisions, layer precisions) float64, sums of e_i'e_j and of its square over the samples
    that both were probed on.
    """

    layer_precisions: tuple[LayerPrecision, ...]
    loss: NDArray[np.float64]
    gram_sum: NDArray[np.float64]
    gram_square_sum: NDArray[np.float64]

    @property
    def samples(self) -> int:
        """Samples probed."""
        return len(self.loss)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Samples that each layer precision was probed on, (layer precisions,): the first so many."""
        return np.asarray(np.count_nonzero(~np.isnan(self.loss), axis=0), dtype=np.int64)

    @property
    def levelled(self) -> tuple[NDArray[np.float64], ...]:
        """The losses of each layer precision on its own samples, (its samples,), at the level of all samples."""
        own = {(str(index), ""): tuple(self.loss[:count, index].tolist()) for index, count in enumerate(self.counts)}
        return tuple(np.asarray(values, dtype=np.float64) for values in on_one_level(own).values())

    @property
    def mean(self) -> NDArray[np.float64]:
        """h, the mean loss of each layer precision, (layer precisions,)."""
        return np.array([values.mean() for values in self.levelled])

    @property
    def error(self) -> NDArray[np.float64]:
        """Standard error of each mean loss, (layer precisions,); infinite from a single sample."""
        return np.array([values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.inf for values in self.levelled])

    @property
    def loss_covariance(self) -> NDArray[np.float64]:
        """Covariance of the mean losses, (layer precisions, layer precisions): they are of the same samples; infinite from a single one.

        The correlations are those on the samples that all were probed on.
        """
        fewest = int(self.counts.min(initial=self.samples))
        if fewest < 2:
            return np.full((len(self.layer_precisions),) * 2, np.inf)
        common = np.atleast_2d(np.cov(self.loss[:fewest], rowvar=False))
        deviation = np.sqrt(np.diag(common))
        scale = np.divide(self.error, deviation, out=np.zeros_like(deviation), where=deviation > 0.0)
        return np.asarray(common * np.outer(scale, scale))

    @property
    def gram(self) -> NDArray[np.float64]:
        """G, (layer precisions, layer precisions)."""
        return np.asarray(self.gram_sum / self._pair_counts * self._pair_levels)

    @property
    def gram_error(self) -> NDArray[np.float64]:
        """Standard error of each entry of G, (layer precisions, layer precisions)."""
        counts = self._pair_counts
        variance = np.maximum(self.gram_square_sum / counts - (self.gram_sum / counts) ** 2, 0.0)
        return np.asarray(np.sqrt(variance / np.maximum(counts - 1, 1)) * self._pair_levels)

    @property
    def _pair_counts(self) -> NDArray[np.int64]:
        return np.asarray(np.minimum.outer(self.counts, self.counts))

    @property
    def _pair_levels(self) -> NDArray[np.float64]:
        """What each pair's entry of G is worth on all samples over what it is on those that both were probed on."""
        counts, levels = self._pair_counts, np.ones(self.gram_sum.shape)
        for count in np.unique(counts[counts < self.samples]):
            here = np.nanmean(self.loss[:count], axis=0)
            of_one = np.sqrt(np.divide(self.mean, here, out=np.ones_like(here), where=here > 0.0))
            levels = np.where(counts == count, np.outer(of_one, of_one), levels)
        return levels


def joined(parts: Sequence[LayerLosses]) -> LayerLosses:
    """Return the single-layer losses of several disjoint sets of samples as one."""
    return LayerLosses(
        parts[0].layer_precisions,
        np.concatenate([part.loss for part in parts]),
        np.sum([part.gram_sum for part in parts], axis=0),
        np.sum([part.gram_square_sum for part in parts], axis=0),
    )


def measure_layer_losses(
    reference: ReferenceModel,
    kinds: Sequence[LossForm],
    layer_precisions: Sequence[LayerPrecision],
    batches: Iterable[Mapping[str, Array]],
    *,
    only: Collection[LayerPrecision] | None = None,
    weights: Sequence[float] = (),
    workers: int = 1,
    on_batch: Callable[[int], None] = lambda samples: None,
) -> LayerLosses:
    """Probe every layer precision, or some of them, on every batch; for the arguments see ``measure_batches``."""
    parts = measure_batches(reference, kinds, layer_precisions, batches, only=only, weights=weights, workers=workers, on_batch=on_batch)
    return joined(parts)


def measure_batches(
    reference: ReferenceModel,
    kinds: Sequence[LossForm],
    layer_precisions: Sequence[LayerPrecision],
    batches: Iterable[Mapping[str, Array]],
    *,
    only: Collection[LayerPrecision] | None = None,
    weights: Sequence[float] = (),
    workers: int = 1,
    on_batch: Callable[[int], None] = lambda samples: None,
) -> tuple[LayerLosses, ...]:
    """Probe every layer precision, or some of them, on every batch, and return what each batch gave.

    ``joined`` of them is the same to the last bit, whoever measured which batch.

    Args:
        reference: The float model in pieces.
        kinds: Kind of each output, or its parts.
        layer_precisions: What the result is about; every layer named is in ``reference``.
        batches: The feeds of each batch.
        only: What to probe of them. None: all.
        weights: Of each output, as for ``Comparison``; none: all weigh the same.
        workers: Probes in flight at once at most, all of one batch, whose activations alone are alive.
        on_batch: Told the number of samples done after each batch.
    """
    wanted: dict[str, list[int]] = {}
    probed = [index for index, layer_precision in enumerate(layer_precisions) if only is None or layer_precision in only]
    for index in probed:
        wanted.setdefault(layer_precisions[index].layer, []).append(index)
    reference.open_quantized((layer_precisions[index].layer, layer_precisions[index].precision) for index in probed)

    parts = []
    done = 0
    for batch in batches:
        run = reference.begin(batch)
        samples = run.samples
        compared = sum(output.nbytes for output, kind in zip(run.outputs, kinds, strict=True) if kind is not OutputKind.IGNORE)
        together = max(1, min(TOGETHER, TOGETHER_BYTES // compared)) if compared else 1
        compare = Comparison(kinds, _side_by_side(kinds, [run.outputs] * together), weights)
        loss = np.full((samples, len(layer_precisions)), np.nan)
        e: dict[int, NDArray[np.float32]] = {}

        def measure(
            probes: Sequence[tuple[int, Probe]], compare: Comparison = compare, together: int = together
        ) -> list[tuple[int, NDArray[np.float64], NDArray[np.float32]]]:
            found = [probe.outputs_from(probe.quantized_output(layer_precisions[index].precision)) for index, probe in probes]
            found += found[:1] * (together - len(found))
            outputs = _side_by_side(kinds, found)
            losses = np.split(compare.losses(outputs), together)
            whitened = np.split(compare.whitened(outputs), together)
            return [(index, losses[place], whitened[place]) for place, (index, _) in enumerate(probes)]

        probes = ((index, probe) for probe in run.probes() for index in wanted.get(probe.layer.name, []))
        for found in in_parallel(measure, _groups(probes, together), run.at_once(workers)):
            for index, values, one in found:
                loss[:, index], e[index] = values, one
        sums = _gram(np.stack([e[index] for index in probed], axis=1) if probed else np.zeros((samples, 0, 1), dtype=np.float32))
        gram_sum, gram_square_sum = (np.zeros((len(layer_precisions),) * 2) for _ in sums)
        gram_sum[np.ix_(probed, probed)], gram_square_sum[np.ix_(probed, probed)] = sums
        parts.append(LayerLosses(tuple(layer_precisions), loss, gram_sum, gram_square_sum))
        done += len(loss)
        del run, compare, measure, probes  # or the activations of two passes would be there at once
        on_batch(done)
    return tuple(parts)


def _side_by_side(kinds: Sequence[LossForm], runs: Sequence[Sequence[Array]]) -> list[Array]:
    """Return each output of several runs along the first axis; of one that is ignored, which may have none, the first run's."""
    outputs = zip(kinds, zip(*runs, strict=True), strict=True)
    return [parts[0] if len(parts) == 1 or kind is OutputKind.IGNORE else np.concatenate(parts) for kind, parts in outputs]


def _groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items, ``size`` at a time."""
    left = iter(items)
    while group := list(itertools.islice(left, size)):
        yield group


def _gram(e: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sums over samples of e_i'e_j and of its square; ``e``: (samples, layer precisions, values)."""
    total = np.zeros((e.shape[1], e.shape[1]))
    squares = np.zeros_like(total)
    # one matrix product a sample: fast, symmetric to the last bit, and no (samples, layer precisions, layer precisions) array
    for sample in e:
        products = (sample @ sample.T).astype(np.float64)
        total += products
        squares += products**2
    return total, squares
