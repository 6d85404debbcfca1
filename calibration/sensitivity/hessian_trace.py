r"""Hutchinson traces of the loss Hessian by gradient-free finite differences.

For a tensor x of a layer (its weight, an input, its output) and Rademacher v, with d the difference of the model's outputs at
x + eps v, the Gauss-Newton form of the second directional derivative is

    v'Hv = d'Fd / eps^2 = 2 e'e / eps^2          (F and e: losses.py)

which needs one forward a probe and cancels nothing, since the loss and its gradient vanish at the float model. E[v'Hv] = trace H
(Hutchinson 1990). The sensitivity of rounding x to Q(x) is then (HAWQ-V2, arXiv 1911.03852, and arXiv 2306.04879)

    1/2 * trace(H) / size(x) * ||x - Q(x)||^2.

That takes the rounding errors to point nowhere in particular, and holds for weights that are rounded to the nearest level. For others there
is no estimate: GPTQ (gptq.py) puts its errors where the curvature is least, and at 4 bits the estimate was 2 to 15 times the loss.
Where the biases of engines are corrected, v shifts the means of the layer's output as rounding does, and the shift is taken off
(mean_inputs.py).

Each batch of samples is probed with a fresh v, so the spread over batches gives the standard error of probes and samples together. The
first FIRST_PROBES batches probe every tensor; with a budget, the others only those that its boundary depends on (boundary.py). A tensor
that is empty in a batch is not probed there.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ParamSpec

import numpy as np

from calibration.algorithms.smooth_quant import multiplied
from calibration.data.sample_axes import SampleAxes
from calibration.execution.onnxruntime_session import Array
from calibration.graph.layers import Layer
from calibration.number_formats.block_grids import fake_quantize_in_blocks
from calibration.number_formats.grids import fake_quantize_dynamically
from calibration.number_formats.precision import Precision, Scheme
from calibration.process.worker_threads import in_parallel
from calibration.sensitivity.adaptive_sampling import Key, ProbedTensor, on_one_level, undecided
from calibration.sensitivity.means.mean_inputs import MeanInputs
from calibration.sensitivity.perturbed_model import Probe, ReferenceModel
from calibration.sensitivity.records import HessianTrace, TensorProbe, TensorProbes, by_tensor
from calibration.sensitivity.simulated_layers import Floats, rounded_inputs, span_of
from calibration.sensitivity.task_losses import Comparison, LossForm

P = ParamSpec("P")

FIRST_PROBES = 2  # of every tensor
FIRST_STEP = 1e-3  # of the tensor's root mean square: the middle of the plateau on a logarithmic scale
AGREEMENT = 0.05  # two steps a factor of two apart must agree this well
SMALLEST_STEP, LARGEST_STEP = 6e-5, 1.7e-2


def probe_tensors(
    reference: ReferenceModel,
    kinds: Sequence[LossForm],
    scheme: Scheme,
    ranges: Mapping[str, tuple[float, float]],
    batches: Sequence[Mapping[str, Array]],
    *,
    seed: int,
    most: int | None = None,
    precisions: Sequence[Precision] = (Precision.INT8,),
    eligible: Mapping[str, Collection[str]] | None = None,
    weights: Sequence[float] = (),
    allowed: float | None = None,
    means: MeanInputs | None = None,
    workers: int = 1,
    on_batch: Callable[[int], None] = lambda done: None,
    before: TensorProbes | None = None,
) -> TensorProbes:
    """Probe the tensors that one of the precisions would round, of every layer, on each batch those that it is worth.

    Args:
        reference: The float model in pieces.
        kinds: Kind of each output, or its parts.
        scheme: How the target quantizes.
        ranges: Ranges of the activations.
        batches: One probe a batch, of every tensor or of those in doubt: the feeds of each.
        seed: Seed of the probe directions.
        most: Samples of a batch that are run at once; a batch of more is run in parts, the step settled on the first. None: all.
        precisions: What the tensors are rounded to.
        eligible: The precisions that each layer can take, by name; a layer that is missing takes none. None: every layer takes all.
        weights: Of each output, as for ``Comparison``; none: all weigh the same.
        allowed: Loss that the accuracy budget allows. None: not known, and every batch probes every tensor.
        means: Says how a change of a weight shifts the means that bias correction keeps; None where biases are not corrected.
        workers: Probes in flight at once at most, all of one batch.
        on_batch: Told the number of batches done.
        before: Probes on the first batches that were made already, to go on behind; they are in the result, too.
    """
    rows = [] if before is None else list(before.rows)
    begun = 1 + max((row.batch for row in rows), default=-1)
    steps: dict[Key, tuple[float, bool]] = {(row.layer, row.site): (row.step, row.settled) for row in rows}
    if not begun:
        layers = (unit.layer for block in reference.blocks for unit in block.units)
        reference.open_float(layer for layer in layers if eligible is None or layer.name in eligible)
    for number, batch in list(enumerate(batches))[begun:]:
        doubtful = _doubtful(by_tensor(rows), allowed) if allowed is not None and number >= FIRST_PROBES else None
        if doubtful is not None and not doubtful:
            break
        parts: list[tuple[int, dict[Key, _Found]]] = []
        for first, part in _parts(batch, most, reference.axes):
            run = reference.begin(part)
            compare = Comparison(kinds, run.outputs, weights)

            def measure(
                probe: Probe,
                compare: Comparison = compare,
                number: int = number,
                first: int = first,
                doubtful: frozenset[Key] | None = doubtful,
            ) -> dict[Key, _Found]:
                found = {}
                taken = precisions if eligible is None else [kind for kind in precisions if kind in eligible.get(probe.layer.name, ())]
                rounded = {precision: sites(reference, probe.layer, scheme, precision) for precision in taken}
                for site in dict.fromkeys(itertools.chain.from_iterable(rounded.values())):
                    key = probe.layer.name, site
                    if doubtful is not None and key not in doubtful:
                        continue
                    tensor = _tensor(probe, site)
                    if not tensor.size:
                        continue
                    size = tensor.size if site == "weight" else max(tensor.size // probe.run.samples, 1)
                    v = _direction(tensor.shape, seed, *key, number, skip=0 if site == "weight" else first * size)
                    curvature = functools.partial(_curvature, probe, compare, site, tensor, v, means)
                    if key not in steps:  # the first part settles the steps
                        step, settled, value = settled_step(curvature)
                        steps[key] = step, settled
                    else:
                        value = curvature(steps[key][0])
                    kinds_of_rounding = [precision for precision in taken if site in rounded[precision]]
                    rounding = {precision: _rounding(probe, site, tensor, scheme, ranges, precision) for precision in kinds_of_rounding}
                    found[key] = _Found(value, rounding, size)
                return found

            measured = in_parallel(measure, run.probes(), run.at_once(workers))
            parts.append((run.samples, dict(itertools.chain.from_iterable(found.items() for found in measured))))
            del run, compare, measure, measured  # or the activations of two passes would be there at once
        for key, mean in _mean_of_parts(parts).items():
            rows.append(TensorProbe(*key, number, mean.curvature, mean.rounding, mean.size, *steps[key]))
        on_batch(number + 1)
    return TensorProbes(tuple(rows))


def traces_from(probes: TensorProbes) -> tuple[HessianTrace, ...]:
    """Return the trace of every tensor that was probed, once for each precision that rounds it."""
    known = by_tensor(probes.rows)
    traces = []
    curvatures = _curvatures(known)
    for (layer, site), of_site in known.items():
        step, settled = of_site[0].step, of_site[0].settled
        values = np.array(curvatures[layer, site])
        error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("inf")
        for precision, rounding in _roundings(of_site).items():
            size = of_site[0].size
            traces.append(HessianTrace(layer, site, float(values.mean()), error, size, len(values), step, settled, rounding, precision))
    return tuple(traces)


def _at_once(probe: Callable[P, TensorProbes]) -> Callable[P, tuple[HessianTrace, ...]]:
    def traces(*args: P.args, **options: P.kwargs) -> tuple[HessianTrace, ...]:
        return traces_from(probe(*args, **options))

    return traces


measure_traces = _at_once(probe_tensors)  # the traces themselves, for the same arguments


def _doubtful(known: Mapping[Key, Sequence[TensorProbe]], allowed: float) -> frozenset[Key]:
    """Return the tensors that are worth another probe, those among them that were empty in one of the first batches."""
    probed = {key: found for key, found in known.items() if len(found) >= FIRST_PROBES}
    return undecided(_probed(probed), allowed) | (known.keys() - probed.keys())


def _probed(known: Mapping[Key, Sequence[TensorProbe]]) -> list[ProbedTensor]:
    """Return what the probes so far say of every tensor in every precision."""
    curvatures = _curvatures(known)
    return [
        ProbedTensor(layer, site, precision, curvatures[layer, site], 0.5 / found[0].size * rounding)
        for (layer, site), found in known.items()
        for precision, rounding in _roundings(found).items()
    ]


def _curvatures(known: Mapping[Key, Sequence[TensorProbe]]) -> dict[Key, tuple[float, ...]]:
    """Return v'Hv of every tensor on each batch that probed it, comparable between tensors of more and of fewer probes."""
    return on_one_level({key: [one.curvature for one in found] for key, found in known.items()})


def _roundings(found: Sequence[TensorProbe]) -> dict[Precision, float]:
    """Return the mean over batches of E ||x - Q(x)||^2, in each precision."""
    return {precision: float(np.mean([one.rounding[precision] for one in found])) for precision in found[0].rounding}


def _parts(batch: Mapping[str, Array], most: int | None, axes: SampleAxes) -> Iterator[tuple[int, Mapping[str, Array]]]:
    """Yield each part of a batch and the place of its first sample."""
    size = axes.samples(batch)
    for start in range(0, size, most or size):
        yield start, axes.part(batch, start, start + (most or size))


def _mean_of_parts(parts: Sequence[tuple[int, Mapping[Key, _Found]]]) -> dict[Key, _Found]:
    """Return what a batch tells of each tensor, from its parts: means over the samples of all."""
    means = {}
    for key, first in dict(itertools.chain.from_iterable(found.items() for _, found in reversed(parts))).items():
        those = [(samples, found[key]) for samples, found in parts if key in found]  # it may be empty in others
        total = sum(samples for samples, _ in those)
        curvature = sum(samples * one.curvature for samples, one in those) / total
        rounding = {kind: sum(samples * one.rounding[kind] for samples, one in those) / total for kind in first.rounding}
        means[key] = _Found(curvature, rounding, first.size)
    return means


def sites(reference: ReferenceModel, layer: Layer, scheme: Scheme, precision: Precision) -> tuple[str, ...]:
    """Return the tensors of a layer that the precision rounds and that an estimate can be made for, as simulated_layers.py rounds them.

    Case 1. Formats that round inputs round the weight, the inputs that ``rounded_inputs`` names, and quantized outputs; those
    whose kernels round the weight and every input.
    Case 2. Formats for weights alone round the weight.
    Case 3. Levels other than the nearest have no estimate, and what else the layer rounds none without them.
    Case 4. Float types have none: what they lose is next to nothing.
    """
    names = ["weight"] if layer.weight is not None else []
    if reference.has_levels(layer, precision):
        return ()
    if precision.is_weight_only:
        return tuple(names)
    if precision.rounds_in_kernel:
        return (*names, *(f"input{index}" for index in range(len(layer.inputs))))
    if not precision.rounds_inputs:
        return ()
    rounded = rounded_inputs(reference.graph, layer, scheme)
    names += [f"input{index}" for index, name in enumerate(layer.inputs) if name in rounded]
    return (*names, "output") if layer.op_type in scheme.quantized_outputs else tuple(names)


def settled_step(curvature: Callable[[float], float]) -> tuple[float, bool, float]:
    """Return the finite-difference step, whether two steps a factor of two apart agree within AGREEMENT, and the curvature there.

    Starts from FIRST_STEP and its half, and moves towards the pair that agrees better.

    Args:
        curvature: v'Hv measured with a step, in units of the tensor's root mean square.
    """
    values = {step: curvature(step) for step in (FIRST_STEP / 2, FIRST_STEP)}
    if _disagreement(*values.values()) > AGREEMENT:
        values[2 * FIRST_STEP] = curvature(2 * FIRST_STEP)
    while True:
        ordered = sorted(values)
        worst, low, high = min((_disagreement(values[a], values[b]), a, b) for a, b in itertools.pairwise(ordered))
        further = ordered[0] / 2 if low == ordered[0] else ordered[-1] * 2
        if worst <= AGREEMENT or not SMALLEST_STEP <= further <= LARGEST_STEP:
            step = low if high <= FIRST_STEP else high  # of the two, the one deeper in the plateau that the search went for
            return step, worst <= AGREEMENT, values[step]
        values[further] = curvature(further)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """What one batch tells of one tensor."""

    curvature: float  # v'Hv
    rounding: Mapping[Precision, float]
    size: int


def _disagreement(a: float, b: float) -> float:
    top = max(abs(a), abs(b))
    return abs(a - b) / top if top > 0 else 0.0


def _tensor(probe: Probe, site: str) -> Floats:
    if site == "weight":
        return probe.run.model.weight(probe.layer)
    if site == "output":
        return probe.output()
    return np.asarray(probe.inside[probe.layer.inputs[int(site.removeprefix("input"))]], dtype=np.float32)


def _curvature(probe: Probe, compare: Comparison, site: str, tensor: Floats, v: Floats, means: MeanInputs | None, step: float) -> float:
    """Return v'Hv, averaged over the samples of the batch."""
    eps = step * max(math.sqrt(_squared_norm(tensor) / tensor.size), 1e-12)
    moved = v * np.float32(eps)
    with np.errstate(over="ignore"):  # the lowest float32 of a mask moves to -inf
        moved += tensor
    if site == "weight":
        shift = None if means is None else means.shift(probe.layer, np.asarray(v * np.float32(eps), dtype=np.float32))
        output = probe.output(weight=moved, shift=shift)
    elif site == "output":
        output = moved
    else:
        output = probe.output(inputs={probe.layer.inputs[int(site.removeprefix("input"))]: moved})
    e = compare.whitened(probe.outputs_from(output))
    return 2.0 * _squared_norm(e) / len(e) / eps**2


def _rounding(
    probe: Probe, site: str, tensor: Floats, scheme: Scheme, ranges: Mapping[str, tuple[float, float]], precision: Precision
) -> float:
    """Return ||x - Q(x)||^2 in the precision: of the weight, or the mean over samples of an activation."""
    model = probe.run.model
    smooth_quant = model.smooth_quant(probe.layer) if site != "output" and precision.takes_smooth_quant else None
    if site == "weight":
        rounded = model.rounded_weight(probe.layer, precision)
        if smooth_quant is not None:
            rounded = multiplied(rounded, probe.layer, smooth_quant.factor)
        return _squared_norm(tensor - rounded)
    if precision.is_dynamic:
        return _squared_norm(fake_quantize_dynamically(tensor) - tensor) / probe.run.samples
    if precision.rounds_blocks:
        return _squared_norm(fake_quantize_in_blocks(tensor, precision.weight_block or 1) - tensor) / probe.run.samples
    name = probe.layer.output if site == "output" else probe.layer.inputs[int(site.removeprefix("input"))]
    if name not in ranges:
        return 0.0
    span = span_of(model.graph, name, ranges, scheme)
    if smooth_quant is not None:
        span = smooth_quant.low, smooth_quant.high
        error = precision.grid.round_activation(tensor * smooth_quant.factor, *span, symmetric=scheme.symmetric_activations)
        error /= smooth_quant.factor
    else:
        error = precision.grid.round_activation(tensor, *span, symmetric=scheme.symmetric_activations)
    error -= tensor
    return _squared_norm(error) / probe.run.samples


def _squared_norm(x: Floats) -> float:
    """Return the sum of squares, in float64 but without a copy in float64."""
    flat = np.ascontiguousarray(x).reshape(-1)
    return float(np.einsum("i,i->", flat, flat, dtype=np.float64))


def _direction(shape: tuple[int, ...], seed: int, layer: str, site: str, batch: int, *, skip: int = 0) -> Floats:
    """Return Rademacher signs, of which the first ``skip`` in the order of memory belong to earlier samples of the batch."""
    digest = hashlib.sha256(f"{seed}/{layer}/{site}/{batch}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    size = math.prod(shape)
    drawn = np.frombuffer(rng.bytes(-(-(skip + size) // 8)), dtype=np.uint8)[skip // 8 :]
    bits = np.unpackbits(drawn, count=skip % 8 + size)[skip % 8 :]
    signs = bits.astype(np.float32)
    signs *= 2.0
    signs -= 1.0
    return signs.reshape(shape)
