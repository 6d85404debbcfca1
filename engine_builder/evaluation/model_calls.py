"""How a model is called, found by running it: where it counts samples, and how many a call must have.

The declared shapes do not tell: the first axis of an output may count anchors or frames, and happen to be as long as a batch. So the float
model runs a few samples one by one and all of them in one call.

1. An output's axis of samples is the one that has SAMPLES times the length in the call of SAMPLES samples.
2. An output without one is not compared, unless a call takes one sample: then all of it belongs to that sample.
3. A model that runs samples one by one but not together, or gives other shapes then, takes one a call whatever it declares; one that
   runs only as many together as an exporter wrote into it takes as many.
4. Where a sample alone has another answer than the same sample among others, beyond rounding, another guess of the inputs' axes may be
   right. If none is, the samples of a call depend on each other, and every call is like a timed one.
5. An output that differs between two calls on the same samples holds noise that the model draws, and is not compared.
6. Where the inputs fix more than one sample a call, an output's axis of samples is the one on which a sample keeps its place and its
   answer when the others are exchanged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from calibration.data.dataset import CalibrationSet
from calibration.data.input_axes import Axes
from calibration.data.sample_axes import Array, OutputAxis, SampleAxes
from calibration.errors import InvalidConfigError, InvalidModelError
from calibration.onnx_model.model_io import TensorSpec
from engine_builder.config.inspect_settings import InspectSettings
from engine_builder.errors import EngineError
from engine_builder.evaluation.batch_sizes import fixed_batch
from engine_builder.evaluation.sameness import is_same

SAMPLES = 3  # run one by one and together
_EXPORTED = (2, 4, 8, 16, 32, 64, 3, 5, 6, 10)  # batches that a model may hold though it declares none
_NOISE = "changes from call to call on the same samples: the model draws random numbers"
_FAILING_NODE = re.compile(r"running (\w+) node\. Name:'([^']*)'")  # in the runtime's words

Run = Callable[[Mapping[str, Array]], tuple[Array, ...]]


@dataclass(frozen=True, slots=True)
class FoundOutput:
    """One output of a model as it was seen."""

    shape: tuple[int, ...]  # samples first, in a call of one sample; as it is where ``unfit`` says that it counts none
    axis: OutputAxis = field(default_factory=OutputAxis)
    unfit: str | None = None  # why it has no part of its own for each sample, in words that follow its name


@dataclass(frozen=True, slots=True)
class Calls:
    """How a model is called."""

    axes: SampleAxes
    inputs: Axes  # as ``CalibrationSet.axes``
    outputs: tuple[FoundOutput, ...]
    batch: int | None  # samples that every call has; None: any number
    notes: tuple[str, ...] = ()


def find_calls(
    run: Run,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[str],
    samples: CalibrationSet,
    guesses: Sequence[Axes],
    *,
    timed: int,
    most: int,
) -> Calls:
    """Return how the model is called.

    Args:
        run: Runs the float model on the feeds of a call; an EngineError where it cannot.
        inputs: The model's inputs that are no settings.
        outputs: The names of its outputs.
        samples: What it runs on.
        guesses: Axes of the inputs that may count samples, the likeliest first.
        timed: Samples in a timed call.
        most: Samples that a call of an open batch is to have.

    Raises:
        EngineError: The model does not run on these samples, one by one or together.
        InvalidModelError: Its inputs fix different numbers of samples.
    """
    likeliest: Calls | None = None
    failure: EngineError | InvalidModelError | None = None  # of the likeliest guess
    for guess in guesses:
        is_first = likeliest is None and failure is None
        try:
            fixed = fixed_batch(inputs, guess)
            bench = _Bench(run, replace(samples, axes=guess), outputs)
            found = bench.open_calls(timed, most) if fixed is None else bench.fixed_calls(fixed)
        except (EngineError, InvalidModelError) as error:
            failure = error if is_first else failure
            continue
        if not found.is_dependent and (found.calls.batch is None or (is_first and fixed is not None)):
            return found.calls
        if is_first:  # what it does not explain plainly another guess may, else it stands
            likeliest = found.calls
    if likeliest is not None:
        return likeliest
    assert failure is not None  # of the first guess, which gave nothing else
    if isinstance(failure, EngineError) and fixed_batch(inputs, guesses[0]) is None:
        exported = _Bench(run, replace(samples, axes=guesses[0]), outputs).exported_calls(timed)
        if exported is not None:
            return exported.calls
    raise failure


def settled_batch(calls: Calls, settings: InspectSettings, timed: int) -> int:
    """Return the samples in a timed call of a model that is called so.

    Args:
        calls: How it is called.
        settings: The job's settings.
        timed: What the declared sizes and the settings give.

    Raises:
        InvalidConfigError: The user asked for a number that the model does not take.
    """
    if calls.batch is None or calls.batch == timed:
        return timed
    if settings.batch_size != 1 or settings.shapes:
        raise InvalidConfigError(
            f"batch_size: found {timed} samples a call, expected {calls.batch}: {calls.notes[0]}",
            fix=f"Leave batch_size and shapes of that axis out, or export the model so that it runs {timed} samples in a call.",
        )
    return calls.batch


@dataclass(frozen=True, slots=True)
class _Tried:
    """What one guess gives."""

    calls: Calls
    is_dependent: bool = False  # whether the answer for a sample depends on the others in its call


class _Bench:
    """Runs a few samples with one guess of the inputs' axes."""

    def __init__(self, run: Run, samples: CalibrationSet, outputs: Sequence[str]) -> None:
        self._run = run
        self._samples = samples
        self._names = tuple(outputs)

    def fixed_calls(self, batch: int, note: str | None = None) -> _Tried:
        """Return the calls of a model that takes exactly ``batch`` samples."""
        notes = () if note is None else (note,)
        if batch == 1:
            calls = [self._call([index]) for index in range(SAMPLES)]
            seen = [
                _of_one([one.shape for one in parts]) if _holds_numbers(parts[0]) else _foreign(parts[0])
                for parts in zip(*calls, strict=True)
            ]
            return _Tried(self._calls(self._without_noise(seen, [0], calls[0]), 1, notes))
        group = np.arange(batch)
        others = np.concatenate([group[:1], group[1:] + batch - 1])
        first, exchanged, turned = (self._call(indices) for indices in (group, others, np.roll(group, -1)))
        found, dependent = [], None
        for name, one, other, rolled in zip(self._names, first, exchanged, turned, strict=True):
            if not _holds_numbers(one):
                found.append(_foreign(one))
                continue
            axis = _kept_axis(one, other, batch)
            if axis is None and (axis := _turned_axis(one, rolled, batch)) is not None:
                dependent = dependent or name
            found.append(_among(axis, one.shape, batch))
        known = self._without_noise(found, group, first)
        dependent = None if known != found else dependent  # told by its noise
        return _Tried(self._calls(known, batch, (*notes, *(() if dependent is None else (_depends(dependent, batch),)))))

    def open_calls(self, timed: int, most: int) -> _Tried:
        """Return the calls of a model whose inputs leave the number of samples open."""
        alone = [self._call([index]) for index in range(SAMPLES)]
        try:
            together = self._call(range(SAMPLES))
        except EngineError as error:
            return self.fixed_calls(1, _one_at_a_time(f"{SAMPLES} in a call fail{_where(error)}"))
        found = [
            _seen([one[index].shape for one in alone], all_.shape) if _holds_numbers(all_) else _foreign(all_)
            for index, all_ in enumerate(together)
        ]
        for name, one, array in zip(self._names, found, together, strict=True):
            if one is None:
                why = f"output '{name}' has the shape {alone[0][self._names.index(name)].shape} for one and {array.shape} for {SAMPLES}"
                return self.fixed_calls(1, _one_at_a_time(why))
        seen = self._without_noise([one for one in found if one is not None], [0], alone[0])
        for index, one in enumerate(seen):
            if one.unfit is None and not _is_same_alone(one.axis, [arrays[index] for arrays in alone], together[index]):
                return self._dependent(self._names[index], seen, timed)
        if all(one.unfit is not None for one in seen) and timed == 1:
            return self.fixed_calls(1, "no output counts samples: every call has one sample, and all outputs belong to it")
        try:
            large = self._call(range(most))
        except EngineError as error:
            why = f"{most} in a call fail{_where(error)}"
            return self._limited(seen, timed, f"the model does not take any number of samples a call ({why}): every call has {timed}")
        if any(one.unfit is None and one.axis.shape_first(array.shape)[0] != most for one, array in zip(seen, large, strict=True)):
            return self._limited(seen, timed, f"outputs count samples otherwise in a call of {most}: every call has {timed}")
        return _Tried(self._calls(seen, None, ()))

    def exported_calls(self, timed: int) -> _Tried | None:
        """Return the calls of a model that runs several samples together but not one; None where no number of them is found."""
        for batch in dict.fromkeys((timed, *_EXPORTED)):
            if batch > 1:
                try:
                    self._call(range(batch))
                except EngineError:
                    continue
                return self.fixed_calls(
                    batch, f"the model takes {batch} samples a call though its batch axis is dynamic: every call has {batch}"
                )
        return None

    def _dependent(self, name: str, seen: Sequence[FoundOutput], timed: int) -> _Tried:
        return _Tried(self._limited(seen, timed, _depends(name, timed)).calls, is_dependent=True)

    def _limited(self, seen: Sequence[FoundOutput], batch: int, note: str) -> _Tried:
        return self.fixed_calls(1, note) if batch == 1 else _Tried(self._calls(seen, batch, (note,)))

    def _calls(self, found: Sequence[FoundOutput], batch: int | None, notes: tuple[str, ...]) -> Calls:
        inputs = self._samples.axes
        axes = SampleAxes({**inputs, **dict.fromkeys(self._samples.settings)}, tuple(one.axis for one in found))
        return Calls(axes, {name: axis for name, axis in inputs.items() if axis != 0}, tuple(found), batch, notes)

    def _without_noise(self, seen: Sequence[FoundOutput], indices: Sequence[int] | Array, first: Sequence[Array]) -> list[FoundOutput]:
        """Return the outputs with those unfit, by rule 5, that differ from ``first`` when the same samples are run again."""
        return [
            FoundOutput(one.shape, OutputAxis(None), _NOISE)
            if _holds_numbers(one) and (one.shape != other.shape or not is_same(one, other))
            else output
            for output, one, other in zip(seen, first, self._call(indices), strict=True)
        ]

    def _call(self, indices: Sequence[int] | Array) -> tuple[Array, ...]:
        taken = np.asarray(indices, dtype=np.int64) % self._samples.samples
        return self._run(self._samples.take(taken).feeds())


def _holds_numbers(output: Array) -> bool:
    return output.dtype.kind in "fiub"


def _foreign(output: Array) -> FoundOutput:
    return FoundOutput(output.shape, OutputAxis(None), "holds no numbers")


def _seen(alone: Sequence[tuple[int, ...]], together: tuple[int, ...]) -> FoundOutput | None:
    """Return an output from its shapes, by rules 1 and 2; None where they do not fit together."""
    shape = alone[0]
    if any(other != shape for other in alone):
        return FoundOutput(shape, OutputAxis(None), _changing(alone))
    if 0 in shape:
        return FoundOutput(shape, OutputAxis(None), f"is empty: it has the shape {shape}")
    if len(shape) != len(together):
        return None
    longer = [axis for axis, (one, all_) in enumerate(zip(shape, together, strict=True)) if one != all_]
    if not longer:
        return FoundOutput(
            shape, OutputAxis(None), f"has the shape {shape} for one sample and for {SAMPLES}, so that it does not count samples"
        )
    if len(longer) > 1 or together[longer[0]] != SAMPLES * shape[longer[0]]:
        return None
    axis = OutputAxis(longer[0], shape[longer[0]])
    return FoundOutput(axis.shape_first(shape), axis)


def _of_one(shapes: Sequence[tuple[int, ...]]) -> FoundOutput:
    """Return an output of a call of one sample, all of which belongs to it: an axis of length 1 counts it, the first if it can be."""
    shape = shapes[0]
    if any(other != shape for other in shapes):
        return FoundOutput(shape, OutputAxis(None), _changing(shapes))
    if 0 in shape:
        return FoundOutput(shape, OutputAxis(None), f"is empty: it has the shape {shape}")
    axis = OutputAxis(next((axis for axis, size in enumerate(shape) if size == 1), None))
    return FoundOutput(axis.shape_first(shape), axis)


def _among(axis: OutputAxis | None, shape: tuple[int, ...], batch: int) -> FoundOutput:
    if axis is None:
        return FoundOutput(shape, OutputAxis(None), f"has the shape {shape} for {batch} samples, and none of its axes counts them")
    return FoundOutput((1, *axis.shape_first(shape)[1:]), axis)


def _kept_axis(one: Array, exchanged: Array, batch: int) -> OutputAxis | None:
    """Return the axis on which the first sample keeps its answer and others do not, by rule 6."""
    for axis in _eligible(one.shape, batch):
        if one.shape == exchanged.shape and not is_same(one, exchanged):
            before, after = axis.samples_first(one, batch), axis.samples_first(exchanged, batch)
            if is_same(before[0], after[0]):
                return axis
    return None


def _turned_axis(one: Array, turned: Array, batch: int) -> OutputAxis | None:
    """Return the axis on which answers change places as the samples do."""
    for axis in _eligible(one.shape, batch):
        if one.shape == turned.shape and is_same(np.roll(axis.samples_first(one, batch), -1, axis=0), axis.samples_first(turned, batch)):
            return axis
    return None


def _eligible(shape: tuple[int, ...], batch: int) -> list[OutputAxis]:
    """Return the axes that may count a batch, those without other entries first."""
    eligible = [OutputAxis(axis, size // batch) for axis, size in enumerate(shape) if size and size % batch == 0]
    return sorted(eligible, key=lambda axis: axis.entries > 1)  # stable


def _is_same_alone(axis: OutputAxis, alone: Sequence[Array], together: Array) -> bool:
    first = axis.samples_first(together, SAMPLES)
    return all(is_same(axis.samples_first(one, 1)[0], row) for one, row in zip(alone, first, strict=True))


def _changing(shapes: Sequence[tuple[int, ...]]) -> str:
    other = next(shape for shape in shapes if shape != shapes[0])
    return f"has the shape {shapes[0]} for one sample and {other} for another: its size depends on the values"


def _one_at_a_time(why: str) -> str:
    return f"the model takes one sample at a time though its batch axis is dynamic ({why}): it is run, built and timed so"


def _where(error: EngineError) -> str:
    """Return, in words that follow "fail", at which node the runtime failed if it says so."""
    found = _FAILING_NODE.search(error.detail)
    if found is None:
        return ""
    return f" at the {found[1]} '{found[2]}'" if found[2] else f" at a {found[1]} node"


def _depends(name: str, batch: int) -> str:
    return (
        f"the answer for a sample depends on the other samples in its call (output '{name}'): "
        f"the model is run as it is timed, {batch} in a call, always the same ones together; batch_size sets how many"
    )
