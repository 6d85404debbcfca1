"""The user's model in float32, run on the user's samples before anything is measured: what fails here is the input's fault."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.data.dataset import CalibrationSet
from calibration.data.input_axes import Axes
from calibration.data.sample_axes import SampleAxes
from calibration.errors import InvalidCalibrationSetError, InvalidConfigError, InvalidModelError
from calibration.execution.onnxruntime_session import Array
from calibration.nonfinite import weights_with_nan
from calibration.onnx_model.model_io import TensorSpec
from calibration.process.worker_threads import in_parallel, processors
from engine_builder.backends.base import Runner
from engine_builder.backends.onnxruntime.cpu import OrtCpuRunner
from engine_builder.closed_loop.intake import with_states
from engine_builder.closed_loop.run_sequences import states_at
from engine_builder.closed_loop.single_steps import StepOrder, single_step_warning, step_order
from engine_builder.errors import EngineError
from engine_builder.evaluation.batch_sizes import timed_call
from engine_builder.evaluation.model_calls import Calls, find_calls
from engine_builder.evaluation.outputs import ComparedOutputs
from engine_builder.evaluation.run_samples import run_judged
from engine_builder.records.closed_loop import ClosedLoop

RUNS_FOR_RATE = 2  # timed forward passes; the fastest counts


class FloatModel:
    """An open float32 model on one thread. Errors of the runtime come out as input errors that name the set of samples."""

    def __init__(self, path: Path, names: Sequence[str], specials: Sequence[str] = ()) -> None:
        """Open the model.

        Args:
            path: Of its file.
            names: Of its outputs.
            specials: What the samples hold besides finite numbers, in words: the likely cause of NaN in an output.

        Raises:
            BuildError: ONNX Runtime cannot load it.
        """
        self._runner = OrtCpuRunner(path, threads=1, is_timed=False)
        self._path, self._names, self._specials = path, tuple(names), tuple(specials)

    def calls(
        self,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[str],
        samples: CalibrationSet,
        guesses: Sequence[Axes],
        *,
        timed: int,
        most: int,
        what: str,
    ) -> Calls:
        """Return how the model is called; arguments as for ``find_calls``, and what the user calls these samples.

        Raises:
            InvalidCalibrationSetError: The model does not run on these samples.
        """
        try:
            # Calls of one sample and of several follow each other: what one size took is no room for the other.
            return find_calls(self._runner.run_giving_back, inputs, outputs, samples, guesses, timed=timed, most=most)
        except EngineError as error:
            raise _cannot_run(what, error) from error

    def unrolled(
        self, steps: CalibrationSet, loop: ClosedLoop, wanted: NDArray[np.int64], batch: int, what: str, *, is_batch_fixed: bool
    ) -> CalibrationSet:
        """Return the ``wanted`` steps of some sequences as single samples, each with the state that comes to it in closed loop.

        Raises:
            InvalidCalibrationSetError: The model fails on these samples, or its state changes its shape.
        """
        together = batch if is_batch_fixed else min(batch, len(loop.lengths))
        try:
            states = states_at(self._runner, steps, loop, wanted, batch=together, workers=processors())
        except EngineError as error:
            raise _cannot_run(what, error) from error
        return with_states(steps.take(wanted), states)

    def single_step_warnings(self, samples: CalibrationSet, states: Mapping[str, str], calls: Calls) -> tuple[str, ...]:
        """Return the warning that only single steps are judged, where the model has a state.

        Args:
            samples: What is judged, single steps.
            states: The model's, an output -> the input that takes it in the next step.
            calls: How the model is called.

        Raises:
            EngineError: The model does not run on single samples.
        """
        if not states:
            return ()
        takes_one = calls.batch in (None, 1)
        order = step_order(self._runner.run, samples, states, self._names) if takes_one else StepOrder.UNKNOWN
        return (single_step_warning(states, order),)

    def sample_seconds(self, samples: CalibrationSet, batch: int, what: str) -> float:
        """Return the time of one forward pass, per sample, at ``batch`` samples a call."""
        feeds = samples.take(np.arange(batch) % samples.samples).feeds()
        found = []
        for _ in range(RUNS_FOR_RATE):
            start = time.perf_counter()
            _run(self._runner, feeds, what)
            found.append(time.perf_counter() - start)
        return min(found) / batch

    def outputs(
        self,
        samples: CalibrationSet,
        batch: int,
        compared: Sequence[int],
        axes: SampleAxes,
        what: str,
        *,
        loop: ClosedLoop | None = None,
        is_batch_fixed: bool = True,
    ) -> tuple[Array, ...]:
        """Return the compared outputs for all samples, each (samples, ...), without NaN; infinities, as masks leave them, are sound.

        Steps of sequences are run in closed loop where ``loop`` says so.

        Raises:
            InvalidCalibrationSetError: The model fails on these samples, or an output holds NaN.
            InvalidModelError: An output holds NaN, as weights do.
        """
        try:
            outputs = run_judged(
                self._runner,
                samples,
                loop,
                compared=compared,
                axes=axes,
                batch=batch,
                is_batch_fixed=is_batch_fixed,
                workers=processors(),
            )
        except EngineError as error:
            raise _cannot_run(what, error) from error
        self._check_numbers(outputs, compared, what)
        return outputs

    def check(self, samples: CalibrationSet, batch: int, compared: Sequence[int], axes: SampleAxes, what: str) -> Iterator[int]:
        """Run the model on all samples, yield the number done after each batch, and keep nothing.

        Raises:
            InputError: As for ``outputs``; found here, not deep in a later stage.
        """
        runner = ComparedOutputs(self._runner, compared, axes)

        def one(start: int) -> int:
            indices = np.minimum(np.arange(start, start + batch), samples.samples - 1)
            self._check_numbers(_run(runner, samples.take(indices).feeds(), what), compared, what)
            return min(start + batch, samples.samples)

        yield from in_parallel(one, range(0, samples.samples, batch), processors())

    def check_timed_call(self, samples: CalibrationSet, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Run the model once at the sizes that engines are timed with.

        Raises:
            InvalidConfigError: It fails at these sizes.
        """
        try:
            self._runner.run(timed_call(samples, shapes))
        except EngineError as error:
            found = ", ".join(f"'{name}' {shape}" for name, shape in shapes.items())
            raise InvalidConfigError(
                f"shapes: the model itself fails at the sizes that engines are timed with ({found}): {error.detail}",
                fix="Give sizes in shapes.<input>.opt, or a batch_size, that the model can run.",
            ) from error

    def close(self) -> None:
        """Close the model, which gives its memory back."""
        self._runner.close()

    def _check_numbers(self, outputs: Sequence[Array], compared: Sequence[int], what: str) -> None:
        for index, array in zip(compared, outputs, strict=True):
            if array.dtype.kind == "f" and np.isnan(array).any():
                name = self._names[index]
                _check_weights(self._path, name)
                inputs = f" ({'; '.join(self._specials)})" if self._specials else ""
                raise InvalidCalibrationSetError(
                    f"{what}: the float model's own output '{name}' holds NaN on these samples{inputs}, numbers expected",
                    fix=(_FROM_INPUTS if "NaN" in inputs or "+inf" in inputs else _FROM_INSIDE).format(name=name),
                )


def _check_weights(path: Path, output: str) -> None:
    """Name weights of NaN as the cause where an output is NaN."""
    broken = weights_with_nan(onnx.load(path))
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise InvalidModelError(
            f"model: weight '{broken[0]}'{more} holds NaN, and so does the output '{output}'; numbers expected",
            fix="Export the model again, from a checkpoint whose weights are finite: its training or its conversion went wrong.",
        )


def _run(runner: Runner, feeds: Mapping[str, Array], what: str) -> tuple[Array, ...]:
    try:
        return runner.run(feeds)
    except EngineError as error:
        raise _cannot_run(what, error) from error


def _cannot_run(what: str, error: EngineError) -> InvalidCalibrationSetError:
    return InvalidCalibrationSetError(
        f"{what}: the model itself fails on these samples: {error.detail}",
        fix="Run the model in onnxruntime on one batch of them: check their preprocessing (sizes, value ranges, token ids) and the model.",
    )


_FROM_INPUTS = "Repair the preprocessing that made these values, or remove the samples: the model does not take them."
_FROM_INSIDE = (
    "Check the preprocessing, the size of the values too. Where it is right, the model divides 0 by 0, subtracts infinities that large "
    "values became, or a mask hides all that a Softmax reads, as for samples of nothing but padding: remove such samples, drop such rows "
    "in the model with a Where, or leave the output out with "
    "outputs: {{'{name}': ignore}}."
)
