"""How a model is called, found on random samples of it."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnxruntime

from calibration.data.dataset import CalibrationSet
from calibration.data.input_axes import Axes, possible_axes
from calibration.onnx_model.model_io import input_specs
from engine_builder.errors import EngineError
from engine_builder.evaluation.model_calls import Calls, find_calls
from tests.model_text import Array, samples_for


def calls_of(model: onnx.ModelProto, arrays: Mapping[str, Array] | None = None, *, timed: int = 1, most: int = 8) -> Calls:
    """Return how ``model`` is called, from arrays (samples, ...) for its inputs or random ones of 12 samples."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    specs = input_specs(model)
    samples = CalibrationSet(samples_for(model, 12) if arrays is None else arrays, None)

    def run(feeds: Mapping[str, Array]) -> tuple[Array, ...]:
        try:
            return tuple(session.run(None, dict(feeds)))
        except Exception as error:  # onnxruntime's exceptions share no base class below Exception
            raise EngineError(str(error), fix="feed it otherwise") from error

    names = [value.name for value in model.graph.output]
    guesses: tuple[Axes, ...] = possible_axes(specs, {name: array.shape for name, array in samples.inputs.items()})
    return find_calls(run, specs, names, samples, guesses, timed=timed, most=most)
